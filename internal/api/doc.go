// Package api is the control API under /v1, for the platform team and its tools: tenants, trusted
// issuers, policy stores with their contents, and access keys. Its OpenAPI 3.1 document is made from
// the Go types in types.go.
package api
