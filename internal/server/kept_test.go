package server_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// unpack makes a data directory of what testdata/kept/make.sh kept of a release.
func unpack(t *testing.T, release string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	file, err := os.Open(filepath.Join("testdata", "kept", release+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for packed := tar.NewReader(unzipped); ; {
		header, err := packed.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err == nil && header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(filepath.Join(dir, header.Name), 0o700)
		} else if err == nil {
			var content []byte
			if content, err = io.ReadAll(packed); err == nil {
				err = os.WriteFile(filepath.Join(dir, header.Name), content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The data directories of former releases are whole for this one, decide as they did, and can be written.
func TestKeptReleases(t *testing.T) {
	for release, has := range map[string]struct{ policyStores, keys int }{
		"first":  {3, 1},
		"second": {4, 1},
	} {
		t.Run(release, func(t *testing.T) {
			dir := unpack(t, release)
			decider, err := os.ReadFile(filepath.Join(dir, "decide.key"))
			if err != nil {
				t.Fatal(err)
			}
			report, err := server.Check(t.Context(), dir, "", nil)
			if err != nil || len(report.Problems) > 0 || report.PolicyStores != has.policyStores || report.Keys != has.keys {
				t.Fatalf("%+v, %v", report, err)
			}
			s := start(t, func(c *server.Config) { c.DataDir = dir })
			storeOf := func(tenant string) string {
				return decode[api.Tenant](t, s.must(http.StatusOK, "GET", "/v1/tenants/"+tenant, nil)).PolicyStoreID
			}
			ask := func(credential, tenant, user, resource string) reply {
				return s.amazon(credential, "IsAuthorized", map[string]any{"policyStoreId": storeOf(tenant),
					"principal": map[string]string{"entityType": "User", "entityId": user},
					"action":    map[string]string{"actionType": "Action", "actionId": "view"},
					"resource":  map[string]string{"entityType": "Invoice", "entityId": resource}})
			}
			for question, want := range map[string]string{
				"acme alice 17": "ALLOW", "acme alice 666": "DENY", "acme bob 17": "DENY",
				"globex alice 17": "DENY", // its forbid fails, which denies there
				"linked alice 17": "ALLOW", "linked alice 18": "DENY", "linked bob 17": "DENY",
			} {
				words := strings.Fields(question)
				if words[0] == "linked" && has.policyStores < 4 {
					continue
				}
				if r := ask(s.root, words[0], words[1], words[2]); r.status != http.StatusOK || !strings.Contains(r.body, `"`+want+`"`) {
					t.Errorf("%s: %v, want %s", question, r, want)
				}
			}
			if r := ask(strings.TrimSpace(string(decider)), "acme", "alice", "17"); r.status != http.StatusOK {
				t.Errorf("with its own key: %v", r)
			}
			if r := ask(s.root, "initech", "alice", "17"); r.status == http.StatusOK {
				t.Errorf("a suspended tenant's: %v", r)
			}
			wantStatus(t, s.as(s.root, "GET", "/v1/tenants/umbrella", nil), http.StatusNotFound)
			if r := s.must(http.StatusOK, "GET", "/v1/issuers", nil); !strings.Contains(r.body, "https://idp.example.com") {
				t.Errorf("issuers: %v", r)
			}
			s.must(http.StatusOK, "PUT", "/v1/policy-stores/"+storeOf("acme")+"/contents",
				map[string]any{"policies": named(map[string]string{"none": "forbid (principal, action, resource);"})}, "If-Match", "*")
			if r := ask(s.root, "acme", "alice", "17"); !strings.Contains(r.body, `"DENY"`) {
				t.Errorf("after a write: %v", r)
			}
			s.onboard("umbrella", nil)
		})
	}
}
