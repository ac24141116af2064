//go:build linux

package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// On a disk without room the decisions of a policy store that waits for the log are refused, those of one that
// does not go on and are counted as lost. When there is room again both are logged, without a restart.
func TestADecisionIsLoggedOrRefused(t *testing.T) {
	disk, own := smallDisk(t, 24<<20)
	dir := filepath.Join(disk, "data")
	s := start(t, func(c *server.Config) { c.DataDir, c.Log, c.MinFreeBytes = dir, nil, 0 })
	careful, careless := s.onboard("careful", permitAll).PolicyStoreID, s.onboard("careless", permitAll).PolicyStoreID
	changed := decode[api.PolicyStore](t, s.must(200, "PATCH", "/v1/policy-stores/"+careful, map[string]any{"decisionLog": map[string]string{"full": "wait"}}))
	if changed.DecisionLog.Full != "wait" {
		t.Fatalf("%+v", changed)
	}
	wantStatus(t, s.view(careful, "alice"), 200)
	wantStatus(t, s.view(careless, "alice"), 200)
	var end func()
	if own {
		end = fill(t, disk)
	} else {
		end = forbidWrites(t)
	}
	refused := 0
	for range 50 { // the last page of the file may have room for some
		r := s.view(careful, "alice")
		if r.status == 200 && refused == 0 {
			continue
		}
		wantStatus(t, r, 503)
		refused++
		wantStatus(t, s.view(careless, "alice"), 200)
	}
	if batch := s.amazon(s.root, "BatchIsAuthorized", map[string]any{"policyStoreId": careful, "requests": []any{map[string]any{
		"principal": uid("User", "alice"), "action": map[string]string{"actionType": "Action", "actionId": "view"}, "resource": uid("R", "r")}}}); batch.status == 200 {
		t.Errorf("a batch is answered without a record: %v", batch)
	}
	if refused < 30 || s.count(`copse_decision_log_refused_total{reason="disk"}`) != refused+1 {
		t.Errorf("%d were refused, %d are counted", refused, s.count(`copse_decision_log_refused_total{reason="disk"}`))
	}
	end()
	wantStatus(t, s.view(careful, "alice"), 200)
	s.must(200, "GET", "/v1/decisions", nil) // has everything written
	lost := s.count(`copse_decision_log_lost_total{reason="disk"}`)
	if r := s.report(dir); len(r.Problems) > 0 || int(r.Lost) != lost || lost == 0 {
		t.Errorf("%+v; the metric says that %d are lost", r, lost)
	}
}

func TestAPolicyStoreThatWaitsIsNotDecidedWithoutALog(t *testing.T) {
	dir := t.TempDir()
	t.Run("logged", func(t *testing.T) {
		s := start(t, func(c *server.Config) { c.DataDir, c.DecisionLogFull = dir, "wait" })
		store := s.onboard("acme", permitAll).PolicyStoreID
		wantStatus(t, s.view(store, "alice"), 200)
	})
	s := start(t, func(c *server.Config) { c.DataDir, c.DecisionLog = dir, false })
	store := decode[api.Tenant](t, s.must(200, "GET", "/v1/tenants/acme", nil)).PolicyStoreID
	if r := s.view(store, "alice"); r.status == 200 {
		t.Errorf("answered without a log: %v", r)
	}
	wantStatus(t, s.view(s.onboard("globex", permitAll).PolicyStoreID, "alice"), 200)
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.DecisionLog, cfg.DecisionLogFull = dir, false, "wait"
	if err := cfg.Validate(); err == nil {
		t.Error("new policy stores would wait for a log that is off, and nobody says so")
	}
}

// A server that is killed: every decision of a policy store that waits is in the log if it was answered.
func TestAnsweredDecisionsSurviveAKill(t *testing.T) {
	t.Parallel() // most of its work is done by another process
	binary, dir := buildCopse(t), t.TempDir()
	serve := func() (*process, *caller) {
		p, err := launch(t.Output(), binary, "--data", dir, "--ops-listen", "", "--drain-delay", "0s", "--log-level", "error",
			"--decision-log-full", "wait", "--default-plan", "unmetered")
		if err != nil {
			t.Fatal(err)
		}
		return p, newCaller(t, p.url, p.root())
	}
	p, client := serve()
	store := ""
	var answered sync.Map
	const lives, enough = 3, 200
	for life := range lives {
		s := &site{caller: client}
		if life == 0 {
			store = s.onboard("acme", permitAll).PolicyStoreID
		}
		var clients sync.WaitGroup
		acknowledged := make(chan struct{}, 10*enough)
		for i := range 8 {
			clients.Go(func() {
				for {
					body := fmt.Sprintf(`{"policyStoreId":%q,"principal":{"entityType":"User","entityId":"u%d"},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"R","entityId":"r"}}`, store, i)
					r, err := client.try("POST", "/", body, "Authorization", "Bearer "+client.root, "Content-Type", "application/x-amz-json-1.0", "X-Amz-Target", "VerifiedPermissions.IsAuthorized")
					if err != nil {
						return // it is gone
					}
					if r.status != 200 {
						t.Errorf("got %v", r)
						return
					}
					answered.Store(r.header.Get("X-Amzn-Requestid"), life)
					acknowledged <- struct{}{}
				}
			})
		}
		for range enough {
			<-acknowledged
		}
		if err := p.kill(); err != nil {
			t.Fatal(err)
		}
		clients.Wait()
		client.http.CloseIdleConnections()
		p, client = serve()
	}
	s := &site{caller: client}
	s.must(200, "GET", "/v1/decisions", nil)
	r := s.report(dir)
	logged := filesOf(t, filepath.Join(dir, "decisions"))
	n := 0
	answered.Range(func(id, life any) bool {
		n++
		if !strings.Contains(logged, fmt.Sprintf(`"requestId":%q`, id)) {
			t.Errorf("decision %s, answered in life %v, is not in the log", id, life)
		}
		return true
	})
	if n < lives*enough || len(r.Problems) > 0 || r.Lost > 0 || r.AtLeast || r.Lines < uint64(n) {
		t.Errorf("%d were answered; %+v", n, r)
	}
	if err := p.signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}
