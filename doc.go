// Package copse is the vocabulary of copse: one Cedar policy store per tenant, as a service.
//
// The words, as they are used in every package below:
//
//   - tenant: a customer of the SaaS; [TenantID] is chosen by the operator and compared as bytes.
//   - policy store: schema, policies, settings of one tenant; [PolicyStoreID]. It is never just
//     called a "store": persistence is "storage", an implementation of it a "backend".
//   - incarnation: 128 random bits given to a policy store when it is made, compared for equality
//     only, so that what is deleted and made again never meets its former self; [Incarnation].
//   - directory: tenant -> policy store, with state and incarnation; [Directory].
//   - issuer: an identity provider the operator trusts, and the tenants it may speak for; [Issuer].
//   - decider: anything that answers a [Request] with a [Response]; [Decider].
//   - revision: per policy store, counts commits.
//   - PDP, PAP, PEP: internal/engine decides, internal/policystore administers,
//     internal/authorizer enforces.
//
// Amazon Verified Permissions' words are used on the outside, Cedar's inside internal/engine.
//
// The package holds types, their rules and nothing that does work: it imports the standard library
// and cedar-go's value types only.
package copse
