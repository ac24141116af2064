// Package api is the control API under /v1, for the platform team and its tools: tenants, trusted
// issuers, policy stores with their contents, and access keys. Its OpenAPI 3.1 document, at
// /openapi.json, is made from the Go types in types.go, so that it can't promise what the server does
// not read.
//
// What a caller may rely on:
//
//   - Every route but the document needs a credential (an access key, as bearer or by SigV4), and is
//     refused before its body is read. The routes are listed by [API.Routes] for the test that says so.
//   - A body is JSON in the strict sense: a member given twice, spelt with other capitals or unknown,
//     and text that is not UTF-8, are errors that name their place. Nothing is ignored in silence.
//   - What is not the caller's to see does not exist: the answer for another tenant's policy store is
//     the answer for one that never was.
//   - Every answer that is not a success has the one shape of [ErrorBody]. What went wrong inside
//     copse is in its log, under the request id, and nowhere else.
//
// The document also describes POST /v1/authorize, which internal/authorizer serves by hand;
// [API.Conforms] lets a test hold its requests and answers against the description.
//
// Routing of paths, parameters and the checks that a JSON schema can express are huma's. Around it,
// this package's adapter authenticates, bounds and reads the body, and writes errors.
package api
