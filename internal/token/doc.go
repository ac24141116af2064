// Package token turns a user's token into a tenant and a principal, or refuses it.
//
// A token is a claim by a stranger until an issuer the operator trusts is shown to have signed it,
// and even a token of a trusted issuer may not say everything: each issuer speaks for the tenants
// bound to it and for nobody else. Nearly everything that goes wrong in token verification comes from
// letting the token choose how it is verified, so here the registration of the issuer
// ([copse.Issuer]) chooses: algorithms, keys, audiences, kind of token, tenants, and how claims become
// a principal. What a token says about its own verification (jku, x5u, jwk, crit, zip) is refused.
//
// Header and claims are parsed here, strictly (one meaning per token: no duplicate members, no
// invalid UTF-8, no line breaks inside base64), before any library sees them. golang-jwt computes
// signatures. Key sets are this package's own work and not keyfunc's, because they have to do what
// isolation and law 11 demand: one set per issuer, never merged; fetched through a guarded dialer
// from the discovery document each time; refreshed in bounded numbers, by one caller for all; stale
// for a known time and then unusable.
//
// A verified token is remembered for at most a minute, under the hash of all its bytes, and only for
// as long as its issuer's registration and keys are the ones it was verified with. Refusals are not
// remembered, except that a key id was unknown.
package token
