package policystore

import (
	"fmt"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
)

// Small policy stores are charged by their text alone, so no text may weigh more than it is charged;
// and adding up single policies must never come to less than all of them together.
func TestChargesAreNeverTooLow(t *testing.T) {
	shapes := map[string]func(i int) string{
		"shortest": func(int) string { return "permit(principal,action,resource);" },
		"resource": func(i int) string { return fmt.Sprintf(`permit(principal,action,resource==D::"%d");`, i) },
		"actions": func(i int) string {
			return `permit(principal,action in [` + strings.Repeat(`Action::"a",`, 300) + `Action::"b"],resource);`
		},
		"operators": func(int) string {
			return "permit(principal,action,resource)when{" + strings.Repeat("1<2||", 500) + "true};"
		},
		"sets": func(int) string {
			return "permit(principal,action,resource)when{[" + strings.Repeat("[],", 900) + "1].isEmpty()};"
		},
		"records": func(int) string { return "permit(principal,action,resource)when{{a:1}=={" + records(300) + "}};" },
		"has": func(int) string {
			return "permit(principal,action,resource)when{" + strings.Repeat("context has a||", 300) + "true};"
		},
		"like": func(int) string {
			return `permit(principal,action,resource)when{"a"like"` + strings.Repeat("*a", 900) + `"};`
		},
		"ip": func(int) string {
			return `permit(principal,action,resource)when{` + strings.Repeat(`ip("1.1.1.1").isIpv4()&&`, 200) + `true};`
		},
		"commented": func(int) string {
			return "permit(principal,action,resource); //" + strings.Repeat("x", 9000)
		},
		"annotated": func(int) string { return annotations(200) + "permit(principal,action,resource);" },
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			var sources []engine.Source
			var sum int64
			text := 0
			for i := 0; text < smallText; i++ {
				p, err := engine.ParsePolicy("p", []byte(shape(i)))
				if err != nil {
					t.Fatal(err)
				}
				one, err := weighOne(copse.Settings{}, p)
				if err != nil {
					t.Fatal(err)
				}
				sum += one
				text += len(p.Text())
				sources = append(sources, engine.Source{Ref: copse.PolicyRef{ID: copse.PolicyID(copse.NewID())}, Policy: p})
			}
			bare, err := engine.Compile(nil, copse.Settings{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			all, err := engine.Compile(nil, copse.Settings{}, sources)
			if err != nil {
				t.Fatal(err)
			}
			if charged := bare.Weight() + int64(text)*smallTextWeight; all.Weight()+int64(text) > charged {
				t.Errorf("%d policies weigh %d and are charged %d by their text", len(sources), all.Weight(), charged)
			}
			if all.Weight()+int64(text) > bare.Weight()+sum {
				t.Errorf("together they weigh %d and %d of text, one by one %d", all.Weight(), text, sum)
			}
		})
	}
}

func records(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d:1,", i)
	}
	return b.String() + "b:1"
}

func annotations(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `@a%d("")`, i)
	}
	return b.String()
}

// Idle ledgers stay within their bound, and are never taken from those who use them.
func TestIdleLedgersAreBounded(t *testing.T) {
	d := desks{open: make(map[copse.PolicyStoreID]*desk)}
	big := func() *ledger {
		l := &ledger{scopes: make(map[scopeKey]int)}
		for i := range maxIdleEntries / 10 {
			l.scopes[scopeKey{byte(i), byte(i >> 8), byte(i >> 16)}] = 1
		}
		return l
	}
	used, err := d.enter(t.Context(), "used")
	if err != nil {
		t.Fatal(err)
	}
	used.ledger = big()
	for i := range 30 {
		id := copse.PolicyStoreID(fmt.Sprint(i))
		k, err := d.enter(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		k.ledger = big()
		d.leave(id, k)
		if d.idle > maxIdleEntries {
			t.Fatalf("%d idle entries", d.idle)
		}
	}
	if len(d.open) < 5 || d.open["used"] != used {
		t.Fatalf("%d desks open", len(d.open))
	}
	d.forget("used")
	d.leave("used", used)
	for id := range d.open {
		d.forget(id)
	}
	if d.idle != 0 || len(d.open) != 0 {
		t.Fatalf("%d entries, %d desks left", d.idle, len(d.open))
	}
}
