package api

import (
	"net/http"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// need is what an operation needs a key to be able to do at the least. The services check everything;
// this spares reading and decoding the body of a request that none of them would grant. It refuses only
// what they refuse, in their words. Every member that is set must be
// met; the zero value lets every key through to the service.
type need struct {
	// admin is the service's answer to a key that may not administer; empty when the operation does not
	// need Admin everywhere.
	admin string
	// policyStore is the verb on the policy store that the path names. None: any key may ask.
	policyStore access.Verb
	// members is the verb for the tenant that the path names.
	members access.Verb
	// hook: to answer for identity providers, which say who is whose member.
	hook bool
}

var (
	adminOfTenants = need{admin: "this key may not administer tenants and issuers: that needs admin, everywhere"}
	adminOfKeys    = need{admin: "access keys need a credential with the verb admin and the scope all"}
	// Two more, in policystore's words.
	adminOfPolicyStores = need{admin: "this key may not change policy stores: that needs admin, everywhere"}
	adminOfPlans        = need{admin: "this key may not change plans: that needs admin, everywhere"}
)

// adminOfBackups has no service behind it: the operation itself asks once more.
var adminOfBackups = need{admin: "this key may not make backups, which hold everything: that needs admin, everywhere"}

// adminOfServers has none either.
var adminOfServers = need{admin: "this key may not look into the server: that needs admin, everywhere"}

// needsKey is where an operation's need is in its metadata.
const needsKey = "copse.needs"

// check looks at the key and the path only, never at what is stored, so its answer says nothing about
// what there is.
func (n need) check(c access.Caller, r *http.Request) error {
	if n.admin != "" && !c.MayEverywhere(access.Admin) {
		return &copse.Error{Kind: copse.Denied, Detail: n.admin}
	}
	if n.hook && !c.MayEverywhere(access.Decide) {
		return copse.Errorf(copse.Denied, "this key may not answer for identity providers: that needs decide, everywhere")
	}
	// Admin everywhere may do for any tenant what its own keys may. The value is empty on a path
	// without tenant, and such operations set no members.
	if tenant := copse.TenantID(r.PathValue("tenant")); n.members != 0 && !c.MayEverywhere(access.Admin) && !c.MayForTenant(n.members, tenant) {
		return access.NotCovered(copse.ResourceTenant, string(tenant))
	}
	if n.policyStore == 0 {
		return nil
	}
	id := copse.PolicyStoreID(r.PathValue("id"))
	// An id that can't be one is Invalid for every key alike.
	if err := id.Validate(); err != nil {
		return err
	}
	// Whose it is takes a look at the directory, which the service takes; a key of a tenant gets the
	// benefit of the doubt. What is refused here is refused whether or not the policy store exists.
	if !c.May(n.policyStore, id, c.Scope.Tenant) {
		return access.NotCovered(copse.ResourcePolicyStore, string(id))
	}
	return nil
}
