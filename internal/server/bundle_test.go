package server_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// unpackBundle gives the files of a bundle by name, what is compressed in them taken apart as well.
func unpackBundle(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for files := tar.NewReader(zipped); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if inner, err := gzip.NewReader(bytes.NewReader(text)); err == nil {
			if text, err = io.ReadAll(inner); err != nil {
				t.Fatal(err)
			}
		}
		out[strings.TrimPrefix(header.Name, "copse-debug/")] = string(text)
	}
}

// spellings are the forms in which a text may stand somewhere: as it is, hexadecimal, and base 64 at
// each of three places in what was encoded.
func spellings(canary string) []string {
	out := []string{canary, hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary)))}
	for at := range 3 {
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString([]byte(strings.Repeat("\x00", at) + canary))
			// What the bytes before and after it have a part in is left out.
			out = append(out, text[(at*8+5)/6:len(text)-2])
		}
	}
	return out
}

func holds(files map[string]string, canary string) (where string) {
	for name, text := range files {
		for _, spelling := range spellings(canary) {
			if strings.Contains(text, spelling) {
				return name
			}
		}
	}
	return ""
}

// The search must be able to find.
func TestSpellings(t *testing.T) {
	const canary = "tenant-canary-0123"
	for _, before := range []string{"", "x", "xy", "xyz"} {
		text := []byte(before + canary + " and more")
		for _, form := range []string{string(text), hex.EncodeToString(text), strings.ToUpper(hex.EncodeToString(text)),
			base64.StdEncoding.EncodeToString(text), base64.URLEncoding.EncodeToString(text)} {
			if holds(map[string]string{"f": form}, canary) == "" {
				t.Errorf("not found in %s", form)
			}
		}
	}
	if holds(map[string]string{"f": "tenant-canary-0124"}, canary) != "" {
		t.Error("found where it is not")
	}
}

// A canary in every secret, in every name and in what tenants write: a server that is busy with them makes
// a bundle that has none of them.
func TestDebugBundleHoldsNoSecretsAndNoNames(t *testing.T) {
	dir := t.TempDir()
	master := []byte("master-key-canary-of-32-bytes-00")
	masterFile, cert, key := filepath.Join(dir, "m"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	pemText, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	tlsKey, _ := pem.Decode(pemText)
	if err := os.WriteFile(masterFile, []byte(hex.EncodeToString(master)), 0o600); err != nil {
		t.Fatal(err)
	}
	canaries := map[string]string{
		"the master key": string(master), "the TLS key": string(tlsKey.Bytes[40:80]), "the root secret": "root-secret-canary-000000000000000000000",
		"a collector's path": "traces-path-canary", "the exporter's path": "export-path-canary",
		"a plan": "plan-canary", "a tenant": "tenant-canary", "policy text": "policytextcanary", "a policy's name": "policy-name-canary",
		"an entity": "entity-canary", "a resource": "resource-canary", "a key's description": "description-canary",
		"the environment": "environment-canary", "an issuer": "issuer-canary", "a member": "member-canary",
	}
	t.Setenv("SOMEBODYS_PASSWORD", canaries["the environment"])
	s := start(t, func(c *server.Config) {
		c.MasterKeyFile, c.TLSCert, c.TLSKey = masterFile, cert, key
		c.RootAccessKeyID, c.RootSecretAccessKey = "ROOTKEYOFTHECANARIES", access.Secret(canaries["the root secret"])
		c.TraceEndpoint = "http://127.0.0.1:9/" + canaries["a collector's path"]
		c.DecisionLogExport = "otlp:http://127.0.0.1:9/" + canaries["the exporter's path"]
	})
	s.http.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	s.must(200, "PUT", "/v1/plans/"+canaries["a plan"], api.PutPlanRequest{Quotas: decode[api.Plan](t, s.must(200, "GET", "/v1/plans/default", nil)).Quotas})
	acme := s.onboard(canaries["a tenant"], map[string]string{canaries["a policy's name"]: `permit(principal, action, resource) when { resource.` + canaries["policy text"] + ` };`})
	s.must(200, "PATCH", "/v1/policy-stores/"+acme.PolicyStoreID, api.UpdatePolicyStoreRequest{Plan: new(canaries["a plan"])})
	issuer := "https://" + canaries["an issuer"] + ".example.com"
	s.must(201, "POST", "/v1/issuers", api.Issuer{URL: issuer, Tenants: []string{canaries["a tenant"]},
		TokenType: "access", Audiences: []string{"a"}, Algorithms: []string{"ES256"}, TenantClaim: "t", PrincipalType: "User", GroupType: "Role", GroupClaim: "roles"})
	s.must(200, "PUT", "/v1/tenants/"+canaries["a tenant"]+"/members", api.PutMembersRequest{Members: []api.MemberInput{{MemberRef: api.MemberRef{Issuer: issuer, Subject: canaries["a member"]}}}})
	made := decode[api.CreatedKey](t, s.must(201, "POST", "/v1/keys", api.CreateKeyRequest{Description: canaries["a key's description"],
		Scope: api.KeyScope{Tenant: canaries["a tenant"]}, Verbs: []string{"decide"}, ExpiresAt: time.Now().Add(time.Hour)}))
	_, secret, _ := access.ParseBearer(made.Credential)
	canaries["an access key's secret"] = secret
	for n := range 20 {
		s.amazon(made.Credential, "IsAuthorized", map[string]any{"policyStoreId": acme.PolicyStoreID,
			"principal": map[string]string{"entityType": "User", "entityId": canaries["an entity"] + fmt.Sprint(n)},
			"action":    map[string]string{"actionType": "Action", "actionId": "view"},
			"resource":  map[string]string{"entityType": "R", "entityId": canaries["a resource"]}})
	}

	bundle := s.must(200, "GET", "/v1/debug/bundle", nil)
	if kind := bundle.header.Get("Content-Type"); kind != "application/gzip" {
		t.Errorf("it is called %q", kind)
	}
	files := unpackBundle(t, []byte(bundle.body))
	for name, words := range map[string]string{
		"about.txt": "Names of tenants and plans: false", "doctor.json": `"ready: keys"`, "settings.json": `"trace-endpoint"`, "sizes.json": `"decision log"`,
		"machine.txt": "processors", "metrics.txt": "copse_decisions_total", "goroutines.txt": "debugBundle", "heap.pb.gz": "inuse_space",
		"policystores.json": acme.PolicyStoreID, "usage.json": acme.PolicyStoreID,
	} {
		if !strings.Contains(files[name], words) {
			t.Errorf("%s has no %s:\n%.300s", name, words, files[name])
		}
	}
	for name := range files {
		if strings.HasSuffix(name, ".failed") {
			t.Errorf("%s: %s", name, files[name])
		}
	}
	for what, canary := range canaries {
		if where := holds(files, canary); where != "" {
			t.Errorf("%s is in %s", what, where)
		}
	}
	named := unpackBundle(t, []byte(s.must(200, "GET", "/v1/debug/bundle?names=true", nil).body))
	for what, canary := range canaries {
		if where := holds(named, canary); (where != "") != (what == "a tenant") {
			t.Errorf("with names, %s is in %q", what, where)
		}
	}
}

// Of a server that does not run: a configuration that is not right may hold a secret anywhere.
func TestDebugBundleOfAServerThatDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	for name, config := range map[string]string{
		"right":              "data: " + dir + "\ntrace-endpoint: https://example.com/the-canary-1\ndefault-plan: the-canary-2\n",
		"no such setting":    "data: " + dir + "\nthe-canary-3: x\n",
		"no such variable":   "data: " + dir + "\n",
		"no such value":      "data: " + dir + "\nbackup-every: the-canary-4\n",
		"no YAML":            "data: " + dir + "\n  the-canary-5: [\n",
		"not to be used":     "data: " + dir + "\npublic-url: ftp://the-canary-6\n",
		"a route that isn't": "data: " + dir + "\nroutes-file: " + filepath.Join(dir, "routes.yaml") + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "routes.yaml"), []byte("the-canary-7: [x"), 0o600); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "copse.yaml")
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			environ := []string{"COPSE_ROOT_ACCESS_KEY_ID=CANARY00000000008", "COPSE_ROOT_SECRET_ACCESS_KEY=the-canary-9-the-canary-9", "PASSWORD=the-canary-10"}
			if name == "no such variable" {
				environ = append(environ, "COPSE_PASSWORD=the-canary-11")
			}
			if err := server.WriteDebugBundle(t.Context(), &archive, "v1", file, environ, "", false); err != nil {
				t.Fatal(err)
			}
			files := unpackBundle(t, archive.Bytes())
			if where := holds(files, "the-canary-"); where != "" {
				t.Errorf("%s: %s", where, files[where])
			}
			if wrong := strings.Contains(files["doctor.json"], "it is not right"); wrong != (name != "right") {
				t.Errorf("doctor.json: %s", files["doctor.json"])
			}
			if len(files) != 5 {
				t.Errorf("%d files", len(files))
			}
		})
	}
}
