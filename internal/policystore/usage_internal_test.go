package policystore

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
)

func TestTalliesForgetOldMinutesAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all tallies
		x := all.of("a")
		x.add(time.Now(), 3, 1)
		time.Sleep(UsageMinutes * time.Minute)
		x.add(time.Now(), 2, 0)
		if d, r := x.sum(time.Now()); d != 5 || r != 1 {
			t.Errorf("%d decisions, %d refusals", d, r)
		}
		time.Sleep(time.Minute)
		if d, r := x.sum(time.Now()); d != 2 || r != 0 {
			t.Errorf("a minute later: %d decisions, %d refusals", d, r)
		}
		for i := range maxTallies + 10 {
			all.of(copse.PolicyStoreID(fmt.Sprint(i))).add(time.Now(), 1, 0)
		}
		if len(all.byID) != maxTallies {
			t.Errorf("%d are kept", len(all.byID))
		}
		time.Sleep((UsageMinutes + 1) * time.Minute)
		all.of("b").add(time.Now(), 1, 0)
		if len(all.byID) != 1 || x.state.Load() != tallySwept || all.of("a") == x {
			t.Errorf("%d are kept after all rested", len(all.byID))
		}
	})
}
