package bound

import (
	"context"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

func TestTenant(t *testing.T) {
	none := context.Background()
	acme := WithTenant(none, "acme")
	both := WithTenant(acme, "globex")
	for name, tc := range map[string]struct {
		ctx  context.Context
		want copse.TenantID
		says string
	}{
		"bound":                 {acme, "acme", ""},
		"bound again, the same": {WithTenant(acme, "acme"), "acme", ""},
		"nobody":                {none, "", "no tenant"},
		"empty":                 {WithTenant(none, ""), "", "1 to 128"},
		"not an id":             {WithTenant(none, "a\x00b"), "", "not allowed"},
		"two":                   {both, "", `"acme" and was to be bound to "globex"`},
		// Once two tenants have met in a context, naming the right one again does not mend it.
		"two, then the first": {WithTenant(both, "acme"), "", `"acme" and was to be bound to "globex"`},
		"empty over acme":     {WithTenant(acme, ""), "", "1 to 128"},
	} {
		got, err := Tenant(tc.ctx)
		if got != tc.want || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %q, %v; want %q, %q", name, got, err, tc.want, tc.says)
		}
	}
}

func TestDisagrees(t *testing.T) {
	none := context.Background()
	acme := WithTenant(none, "acme")
	for name, tc := range map[string]struct {
		ctx  context.Context
		want bool
	}{
		"nobody": {none, false}, "the same": {acme, false}, "another": {WithTenant(none, "globex"), true}, "two": {WithTenant(acme, "globex"), true},
	} {
		if got := Disagrees(tc.ctx, "acme"); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
