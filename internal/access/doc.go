// Package access decides who is calling.
//
// Whoever may change a tenant's policies may change every decision about that tenant, so each call
// that administers anything has to be tied to a credential, to what that credential covers, and to a
// way of taking it back that works at once. The credential is an access key: an id, a secret, a
// [Scope] and some [Verb]s. It is presented in one of two ways, and both end in the same [Caller],
// the value that every administrative method of copse takes as a parameter:
//
//   - as a bearer, "copse_<id>_<secret>", which is what people and scripts want;
//   - as the key of an AWS Signature Version 4, which is what unmodified AWS clients send.
//
// A signature can only be verified with the secret itself, so a hash of it will not do. Secrets are
// kept encrypted under a key derived from the master key, which lives outside the storage: a copy of
// the database alone opens nothing. A revoked key stops working before [Service.RevokeKey] returns,
// and its encrypted secret is forgotten from the history as well.
//
// The root key comes from the configuration, is never stored, and wins over a stored key of the same
// id, so that an operator who lost every key can always get back in.
package access
