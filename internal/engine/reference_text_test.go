//go:build !race

package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

const referenceTexts = 4_000

// Mutated policy texts are read by both or refused by both, but for limits that are copse's own.
func TestReferenceReads(t *testing.T) {
	r := startReference(t)
	target := fuzzTargets()[0]
	random := rand.New(rand.NewPCG(20261127, 0))
	var read, refused, limited, differences int
	for range referenceTexts {
		// cedar-go, and so copse, knows /* comments */, the reference does not.
		text := bytes.ReplaceAll(bytes.ReplaceAll(mutate(random, target), []byte("/*"), nil), []byte("*/"), nil)
		if !utf8.Valid(text) {
			continue // can't be asked in JSON
		}
		_, err := ParsePolicies("p", text)
		var want referenceVerdict
		r.ask(t, "checkParsePolicySet", fmt.Sprintf(`{"staticPolicies":%s}`, quoted(string(text))), &want)
		switch {
		case err == nil && !want.refused():
			read++
		case err != nil && want.refused():
			refused++
		case err != nil && ownLimit(err):
			limited++
		default:
			if differences++; differences < 20 {
				t.Errorf("%q: got %v, the reference says %+v", text, err, want.Errors)
			}
		}
	}
	t.Logf("%d read, %d refused, %d beyond copse's own limits, %d differences", read, refused, limited, differences)
	if read < 350 || refused < 1_000 {
		t.Error("the run is too narrow")
	}
}

func ownLimit(err error) bool {
	for _, words := range []string{"nest more than", "goes more than", "more than 32 links", "nodes up to here"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}
