package copse_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

func TestTenantIDs(t *testing.T) {
	for _, good := range []copse.TenantID{"a", "Acme", "acme", "0", "a.b_c:d@e-f", copse.TenantID(strings.Repeat("x", 128))} {
		if err := good.Validate(); err != nil {
			t.Errorf("%q is refused: %v", good, err)
		}
	}
	for _, bad := range []copse.TenantID{
		"", "-a", ".", "..", "a/b", "a b", " a", "a ", "a\x00", "a\n", "é", "a%2e", "a\xff", copse.TenantID(strings.Repeat("x", 129)),
	} {
		if err := bad.Validate(); copse.KindOf(err) != copse.Invalid {
			t.Errorf("%q: got %v, want Invalid", bad, err)
		}
	}
}

func TestNamesAndIDs(t *testing.T) {
	for _, bad := range []string{"", "a b", "a\n", "ü", strings.Repeat("n", 146)} {
		if err := copse.ValidateName(bad); copse.KindOf(err) != copse.Invalid {
			t.Errorf("name %q: got %v, want Invalid", bad, err)
		}
	}
	if err := copse.ValidateName("team/limits_v2-final"); err != nil {
		t.Error(err)
	}
	if err := copse.PolicyStoreID(strings.Repeat("p", 201)).Validate(); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a policy store id of 201 characters: %v", err)
	}
	if err := copse.PolicyID("a:b").Validate(); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a policy id with a colon: %v", err)
	}
}

func TestGeneratedIDs(t *testing.T) {
	seen := map[string]bool{}
	used := map[rune]int{}
	for range 10_000 {
		id := copse.NewID()
		if len(id) != 22 || seen[id] {
			t.Fatalf("id %q is short or was drawn before", id)
		}
		seen[id] = true
		for _, r := range id {
			used[r]++
		}
		if err := copse.PolicyStoreID(id).Validate(); err != nil {
			t.Fatal(err)
		}
	}
	// 220,000 characters over 58: each is expected 3,793 times; a skew from a careless modulo would
	// put some of them a quarter higher.
	if len(used) != 58 {
		t.Errorf("%d characters used, want 58", len(used))
	}
	for r, n := range used {
		if n < 3_300 || n > 4_300 {
			t.Errorf("%c was drawn %d times of an expected 3,793", r, n)
		}
	}
}

func TestIncarnationText(t *testing.T) {
	i := copse.NewIncarnation()
	text, err := i.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back copse.Incarnation
	if err := back.UnmarshalText(text); err != nil || back != i {
		t.Errorf("%v came back as %v (%v)", i, back, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("z", 32), strings.Repeat("0", 34)} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as an incarnation", bad)
		}
	}
	if i.IsZero() || !(copse.Incarnation{}).IsZero() {
		t.Error("only the zero incarnation is zero")
	}
}

func TestDecisionFailsClosed(t *testing.T) {
	var unset copse.Response
	if unset.Decision != copse.Deny || unset.Decision.String() != "DENY" {
		t.Errorf("an unset decision is %v", unset.Decision)
	}
	if copse.Decision(7).String() != "DENY" {
		t.Error("a decision out of range must not print as ALLOW")
	}
}

func TestIssuerSpeaksForNobodyUnlessBound(t *testing.T) {
	for _, c := range []struct {
		issuer copse.Issuer
		want   bool
	}{
		{copse.Issuer{}, false},
		{copse.Issuer{AllTenants: true}, true},
		{copse.Issuer{Tenants: []copse.TenantID{"acme"}}, true},
		{copse.Issuer{Tenants: []copse.TenantID{"Acme", "acme ", "acm"}}, false},
		{copse.Issuer{FixedTenant: "acme"}, false},
	} {
		if got := c.issuer.MaySpeakFor("acme"); got != c.want {
			t.Errorf("%+v: %v", c.issuer, got)
		}
	}
}

func TestErrorKinds(t *testing.T) {
	names := map[string]bool{}
	for _, k := range copse.Kinds() {
		if names[k.String()] || strings.HasPrefix(k.String(), "Kind(") {
			t.Errorf("kind %d is called %q", k, k)
		}
		names[k.String()] = true
	}
	cause := errors.New("disk on fire")
	wrapped := fmt.Errorf("while saving: %w", copse.Errorf(copse.Unavailable, "can't write: %w", cause))
	if copse.KindOf(wrapped) != copse.Unavailable || !errors.Is(wrapped, cause) {
		t.Errorf("%v lost its kind or its cause", wrapped)
	}
	if copse.KindOf(cause) != copse.Internal {
		t.Error("an error nobody classified must be Internal")
	}
	if copse.KindOf(context.DeadlineExceeded) != copse.Unavailable {
		t.Error("a deadline is Unavailable")
	}
	found := &copse.Error{Kind: copse.Invalid, Detail: "2 findings", Fields: []copse.Field{
		{Path: "a.cedar", Line: 3, Column: 9, Message: "unexpected }"}, {Path: "b", Message: "empty"}}}
	if got, want := found.Error(), "2 findings; a.cedar:3:9: unexpected }; b: empty"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := copse.NotFoundError(copse.ResourcePolicyStore, "x").Error(); got != `policy store "x" does not exist` {
		t.Error(got)
	}
}
