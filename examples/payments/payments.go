// Package payments is the sample SaaS: a payments product with three customers, each of which decides
// in its own way, from its own schema. Users, resources and policies of the three have equal names on
// purpose, so that whatever keeps them apart, it is not their names.
//
// `copse dev` onboards it. The README beside this file tells what each customer wants.
package payments

import "embed"

// Files holds one directory per tenant below "tenants": schema.cedarschema, and policies/*.cedar.
//
//go:embed tenants
var Files embed.FS
