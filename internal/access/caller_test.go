package access

import (
	"testing"

	"github.com/copse-authz/copse"
)

func TestWhatACallerMay(t *testing.T) {
	everything := Read | Write | Decide | Admin
	for name, c := range map[string]struct {
		caller     Caller
		verb       Verb
		id         copse.PolicyStoreID
		tenant     copse.TenantID
		may        bool
		everywhere bool
	}{
		"nobody":                            {Caller{}, Read, "ps1", "acme", false, false},
		"nobody, nothing named":             {Caller{}, Read, "", "", false, false},
		"verbs without a scope":             {Caller{Verbs: everything}, Read, "ps1", "acme", false, false},
		"verbs without a scope, no tenant":  {Caller{Verbs: everything}, Read, "ps1", "", false, false},
		"scope without verbs":               {Caller{Scope: Scope{All: true}}, Read, "ps1", "acme", false, false},
		"system":                            {System(), Admin, "ps1", "acme", true, true},
		"all, another verb":                 {Caller{Scope: Scope{All: true}, Verbs: Read}, Write, "ps1", "acme", false, false},
		"all, one of two verbs":             {Caller{Scope: Scope{All: true}, Verbs: Read}, Read | Write, "ps1", "acme", false, false},
		"tenant":                            {Caller{Scope: Scope{Tenant: "acme"}, Verbs: Read}, Read, "ps1", "acme", true, false},
		"tenant, another's policy store":    {Caller{Scope: Scope{Tenant: "acme"}, Verbs: Read}, Read, "ps1", "globex", false, false},
		"tenant, in another case":           {Caller{Scope: Scope{Tenant: "acme"}, Verbs: Read}, Read, "ps1", "ACME", false, false},
		"tenant, the operator's":            {Caller{Scope: Scope{Tenant: "acme"}, Verbs: Read}, Read, "ps1", "", false, false},
		"policy store":                      {Caller{Scope: Scope{PolicyStore: "ps1"}, Verbs: Read}, Read, "ps1", "acme", true, false},
		"policy store, another":             {Caller{Scope: Scope{PolicyStore: "ps1"}, Verbs: Read}, Read, "ps2", "acme", false, false},
		"policy store named as the tenant":  {Caller{Scope: Scope{PolicyStore: "acme"}, Verbs: Read}, Read, "ps1", "acme", false, false},
		"tenant named as the policy store":  {Caller{Scope: Scope{Tenant: "ps1"}, Verbs: Read}, Read, "ps1", "acme", false, false},
		"both named, the policy store wins": {Caller{Scope: Scope{PolicyStore: "ps1", Tenant: "acme"}, Verbs: Read}, Read, "ps2", "acme", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.caller.May(c.verb, c.id, c.tenant); got != c.may {
				t.Errorf("May: %v, want %v", got, c.may)
			}
			if got := c.caller.MayEverywhere(c.verb); got != c.everywhere {
				t.Errorf("MayEverywhere: %v, want %v", got, c.everywhere)
			}
		})
	}
}
