package dev

import (
	"time"

	"github.com/copse-authz/copse"
)

// Case is a request of the tour with the answer it must give. Policies are told by name: ids are drawn
// anew with every data directory.
type Case struct {
	// Name tells cases apart in errors and in the tour's JSON; Asked is for people.
	Name        string
	Asked       string
	Token       TokenRequest
	Body        string
	Status      int
	Decision    string   // of a 200
	Determining []string // of a 200
}

// Cases are the questions every release must answer the same way: for each tenant one that is allowed,
// one that a forbid denies and one that no policy permits; then every way across the border.
func Cases() []Case {
	// Amounts are in cents, as in the samples' policies.
	const (
		day     = 24 * time.Hour
		invoice = `{"action":{"id":"pay"},"resource":{"type":"Invoice","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Invoice","id":"17"},"attrs":{"amount":90000,"frozen":false},"parents":[]}]}}`
		frozen  = `{"action":{"id":"pay"},"resource":{"type":"Invoice","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Invoice","id":"17"},"attrs":{"amount":90000,"frozen":true},"parents":[]}]}}`
		view    = `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Invoice","id":"17"},"attrs":{"amount":90000,"frozen":false},"parents":[]}]}}`

		// The same questions as an AWS SDK would write them.
		payment = `{"action":{"actionType":"Action","actionId":"approve"},"resource":{"entityType":"Payment","entityId":"17"},"entities":{"entityList":[{"identifier":{"entityType":"Payment","entityId":"17"},"attributes":{"region":{"string":"eu"},"creator":{"entityIdentifier":{"entityType":"User","entityId":"bob"}}}}]}}`
		own     = `{"action":{"actionType":"Action","actionId":"approve"},"resource":{"entityType":"Payment","entityId":"17"},"entities":{"entityList":[{"identifier":{"entityType":"Payment","entityId":"17"},"attributes":{"region":{"string":"eu"},"creator":{"entityIdentifier":{"entityType":"User","entityId":"alice"}}}}]}}`
		foreign = `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Payment","entityId":"17"},"entities":{"entityList":[{"identifier":{"entityType":"Payment","entityId":"17"},"attributes":{"region":{"string":"us"},"creator":{"entityIdentifier":{"entityType":"User","entityId":"bob"}}}}]}}`

		// Tags of an entity, which of the three schemas only initech's has.
		ledger = `{"action":{"id":"post"},"resource":{"type":"Ledger","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Ledger","id":"17"},"attrs":{"owner":{"__entity":{"type":"User","id":"alice"}}},"parents":[],"tags":{"period":"open"}}]}}`
		closed = `{"action":{"id":"post"},"resource":{"type":"Ledger","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Ledger","id":"17"},"attrs":{"owner":{"__entity":{"type":"User","id":"alice"}}},"parents":[],"tags":{"period":"closed"}}]}}`
		peek   = `{"action":{"id":"view"},"resource":{"type":"Ledger","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"Ledger","id":"17"},"attrs":{"owner":{"__entity":{"type":"User","id":"alice"}}},"parents":[]}]}}`

		// What no body may say, beside a token that is good: who asks, and which roles they have.
		promotion = `{"action":{"id":"pay"},"resource":{"type":"Invoice","id":"17"},"entities":{"cedarJson":[{"uid":{"type":"User","id":"bob"},"attrs":{},"parents":[{"type":"Role","id":"manager"}]},{"uid":{"type":"Invoice","id":"17"},"attrs":{"amount":90000,"frozen":false},"parents":[]}]}}`
		principal = `{"principal":{"type":"User","id":"alice"},"action":{"id":"pay"},"resource":{"type":"Invoice","id":"17"}}`
	)
	// alice is in all three tenants, and her tokens say what that tenant decides by.
	clerk := func(issuer string) TokenRequest {
		return TokenRequest{Issuer: issuer, Tenant: "acme", User: "alice", Groups: []string{"clerk"}, Expires: day}
	}
	european := func(issuer string) TokenRequest {
		return TokenRequest{Issuer: issuer, Tenant: "globex", User: "alice", Claims: map[string]any{"region": "eu"}, Expires: day}
	}
	user := func(issuer string, tenant copse.TenantID, user string) TokenRequest {
		return TokenRequest{Issuer: issuer, Tenant: tenant, User: user, Expires: day}
	}
	expired := clerk("acme")
	expired.Expires = -time.Minute
	allow := func(name, asked string, token TokenRequest, body string, by ...string) Case {
		return Case{Name: name, Asked: asked, Token: token, Body: body, Status: 200, Decision: "ALLOW", Determining: by}
	}
	deny := func(name, asked string, token TokenRequest, body string, by ...string) Case {
		return Case{Name: name, Asked: asked, Token: token, Body: body, Status: 200, Decision: "DENY", Determining: by}
	}
	refuse := func(name, asked string, token TokenRequest, body string, status int) Case {
		return Case{Name: name, Asked: asked, Token: token, Body: body, Status: status}
	}
	return []Case{
		allow("acme-allowed", "acme: alice, a clerk, pays 900.00", clerk("acme"), invoice, "clerks-pay-small-amounts"),
		deny("acme-forbidden", "acme: she pays an invoice in dispute", clerk("acme"), frozen, "no-payment-in-dispute"),
		deny("acme-default", "acme: bob, without a role, looks at it", user("acme", "acme", "bob"), view),
		allow("globex-allowed", "globex: alice, of the EU, approves a payment there", european("globex"), payment, "approve-in-region"),
		deny("globex-forbidden", "globex: she approves a payment of her own", european("globex"), own, "four-eyes"),
		deny("globex-default", "globex: she looks at a payment in the US", european("globex"), foreign),
		allow("initech-allowed", "initech: alice posts to her ledger", user("initech", "initech", "alice"), ledger, "owners-do-everything"),
		deny("initech-forbidden", "initech: she posts to it after closing", user("initech", "initech", "alice"), closed, "no-posting-after-closing"),
		deny("initech-default", "initech: bob looks at her ledger", user("initech", "initech", "bob"), peek),
		allow("shared-acme", "the shared issuer's token, for acme", clerk(Shared), invoice, "clerks-pay-small-amounts"),
		allow("shared-globex", "the shared issuer's token, for globex", european(Shared), payment, "approve-in-region"),
		allow("shared-initech", "the shared issuer's token, for initech", user(Shared, "initech", "alice"), ledger, "owners-do-everything"),
		refuse("cross-tenant", "acme's issuer, in a valid token, claims globex", european("acme"), payment, 403),
		refuse("unknown-tenant", "the shared issuer claims a tenant that is none", user(Shared, "umbrella", "alice"), invoice, 403),
		refuse("expired", "a token that expired a minute ago", expired, invoice, 401),
		refuse("body-names-principal", "a body that says who asks", user("acme", "acme", "bob"), principal, 400),
		refuse("body-defines-principal", "a body that makes bob a manager", user("acme", "acme", "bob"), promotion, 400),
	}
}
