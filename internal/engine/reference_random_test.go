//go:build !race

package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

const (
	referenceStores   = 400
	referenceRequests = 5 // of each policy store
)

// Random policy stores with links and whole schemas; requests that a schema allows, and requests that
// it forbids. The reference and the engine refuse the same ones and answer the others alike.
func TestReferenceDecides(t *testing.T) {
	r := startReference(t)
	g := &grove{r: rand.New(rand.NewPCG(20261125, 0))}
	var decided, allows, failing, refused, links, mismatches int
	for range referenceStores {
		g.plant()
		policies := map[string]written{}
		for i := range g.r.IntN(20) {
			w := g.policy(3)
			if policies[fmt.Sprintf("p%02d", i)] = w; w.isLink() {
				links++
			}
		}
		snapshot, _ := compileRandom(t, g, policies)
		set, schema := policySetJSON(policies), ""
		var entities []types.Entity
		for _, e := range g.entities {
			if g.declared == nil || !isActionType(e.UID.Type) {
				entities = append(entities, e)
			}
		}
		if g.declared != nil {
			schema = g.schema
		}
		mine, theirs := g.lists(), cedarListJSON(entities)
		for range referenceRequests {
			request := g.request()
			if g.declared != nil && g.chance(40) {
				request, _ = g.violation(request)
			}
			var want referenceVerdict
			r.ask(t, "isAuthorized", authorizationJSON(schema, set, theirs, cedarRecordJSON(request.Context), request), &want)
			req := g.encodings(mine, request)[0]
			got, err := snapshot.Decide(&req)
			switch {
			case want.refused() != (err != nil):
				mismatches++
				t.Errorf("%v: got %v, the reference says %+v", request, err, want.Errors)
			case want.refused():
				refused++
			default:
				decided++
				if !want.sameAs(got) {
					mismatches++
					t.Errorf("%v: got %v, the reference says %v", request, verdictOf(got), want.judged())
				}
				if got.Decision == copse.Allow {
					allows++
				}
				if len(got.Errors) > 0 {
					failing++
				}
			}
			if mismatches > 10 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d decided, %d ALLOW, %d with errors, %d refused, %d links", decided, allows, failing, refused, links)
	if decided < 1_500 || allows < 300 || failing < 300 || refused < 100 || links < 300 {
		t.Error("the run is too narrow")
	}
}
