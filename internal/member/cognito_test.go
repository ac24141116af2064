package member_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// world is members on a backend that counts what is read, with a directory and issuers of the test's own.
type world struct {
	*member.Service
	backend *counting
	issuer  copse.Issuer
	entries map[copse.TenantID]copse.DirectoryEntry
	away    error // of the directory
}

// counting counts the reads of a backend.
type counting struct {
	storage.Backend
	reads atomic.Int64
}

func (c *counting) Get(ctx context.Context, p storage.Partition, k storage.Key) (storage.Item, error) {
	c.reads.Add(1)
	return c.Backend.Get(ctx, p, k)
}

func (c *counting) Scan(ctx context.Context, p storage.Partition, k storage.Kind, after string, limit int) ([]storage.Item, error) {
	c.reads.Add(1)
	return c.Backend.Scan(ctx, p, k, after, limit)
}

func (w *world) Lookup(_ context.Context, t copse.TenantID) (copse.DirectoryEntry, error) {
	if w.away != nil {
		return copse.DirectoryEntry{}, w.away
	}
	e, ok := w.entries[t]
	if !ok {
		return e, copse.NotFoundError(copse.ResourceTenant, string(t))
	}
	return e, nil
}

const pool = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE"

func newWorld(t *testing.T, tenants ...copse.TenantID) *world {
	t.Helper()
	w := &world{backend: &counting{Backend: memory.New()}, entries: map[copse.TenantID]copse.DirectoryEntry{},
		issuer: copse.Issuer{URL: pool, Tenants: tenants, TenantClaim: "tenant_id", GroupClaim: "cognito:groups", EmailDomains: []string{"example.com"}}}
	writes := []storage.Write{}
	for _, name := range tenants {
		w.entries[name] = copse.DirectoryEntry{Tenant: name, State: copse.TenantActive, PolicyStoreID: "P", Incarnation: copse.NewIncarnation()}
		writes = append(writes, storage.Write{Key: storage.Key{Kind: access.TenantKind, ID: string(name)}, Body: []byte("{}")})
	}
	if _, err := w.backend.Commit(t.Context(), storage.Commit{Partition: storage.Directory(), Create: true, Incarnation: copse.NewIncarnation(), Writes: writes}); err != nil {
		t.Fatal(err)
	}
	var err error
	w.Service, err = member.New(member.Config{Backend: w.backend, Directory: w, Issuer: func(_ context.Context, url string) (copse.Issuer, error) {
		if url != w.issuer.URL {
			return copse.Issuer{}, copse.NotFoundError(copse.ResourceIssuer, url)
		}
		return w.issuer, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (w *world) put(t *testing.T, m member.Membership) {
	t.Helper()
	errs, err := w.Put(t.Context(), access.System(), []member.Membership{m})
	if err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
}

// sample is one of the events that come with AWS's library, with changes; "" removes.
func sample(t *testing.T, name string, change map[string]any) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-lambda-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "events", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	for path, value := range change {
		at := event
		parts := strings.Split(path, ".")
		for _, part := range parts[:len(parts)-1] {
			at = at[part].(map[string]any)
		}
		at[parts[len(parts)-1]] = value
	}
	out, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const (
	sampleV1 = "cognito-event-userpools-pretokengen.json"
	sampleV2 = "cognito-event-userpools-pretokengen-v2_0.json"
	subject  = "a36036a8-9061-424d-a737-56d57dae7bc6" // of AWS's second sample
)

func TestCognitoVersions(t *testing.T) {
	w := newWorld(t, "acme")
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: subject}, Tenant: "acme", Roles: []string{"clerk", "a b"}, Attributes: map[string]string{"region": "eu"}})
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, ClientID: "1example23456789"}, Tenant: "acme"})
	hostile := map[string]any{
		"request.userAttributes": map[string]any{"sub": subject, "custom:tenant_id": "globex", "Tenant_ID": "globex", "tenant_id": "globex", "custom:level": "7"},
		"request.clientMetadata": map[string]any{"tenant_id": "globex", "tenant": "globex"},
	}

	t.Run("1", func(t *testing.T) {
		changed := map[string]any{"region": "us-east-1", "userPoolId": "us-east-1_EXAMPLE"}
		for k, v := range hostile {
			changed[k] = v
		}
		var got events.CognitoEventUserPoolsPreTokenGen
		answer(t, w, sample(t, sampleV1, changed), &got)
		want := events.CognitoEventUserPoolsPreTokenGenResponse{ClaimsOverrideDetails: events.ClaimsOverrideDetails{
			ClaimsToAddOrOverride: map[string]string{"tenant_id": "acme", "region": "eu"}, ClaimsToSuppress: []string{"Tenant_ID", "custom:tenant_id"},
			GroupOverrideDetails: events.GroupConfiguration{GroupsToOverride: []string{"clerk", "a b"}, IAMRolesToOverride: got.Request.GroupConfiguration.IAMRolesToOverride, PreferredRole: got.Request.GroupConfiguration.PreferredRole},
		}}
		if diff := cmp.Diff(want, got.Response); diff != "" {
			t.Error(diff)
		}
	})
	for _, version := range []string{"2", "3"} {
		t.Run(version, func(t *testing.T) {
			changed := map[string]any{"version": version}
			for k, v := range hostile {
				changed[k] = v
			}
			var got events.CognitoEventUserPoolsPreTokenGenV2_0
			answer(t, w, sample(t, sampleV2, changed), &got)
			d := got.Response.ClaimsAndScopeOverrideDetails
			for kind, each := range map[string][2]any{"id": {d.IDTokenGeneration.ClaimsToAddOrOverride, d.IDTokenGeneration.ClaimsToSuppress},
				"access": {d.AccessTokenGeneration.ClaimsToAddOrOverride, d.AccessTokenGeneration.ClaimsToSuppress}} {
				if diff := cmp.Diff([2]any{map[string]any{"tenant_id": "acme", "region": "eu"}, []string{"Tenant_ID", "custom:tenant_id"}}, each); diff != "" {
					t.Errorf("%s token: %s", kind, diff)
				}
			}
			if !slices.Equal(d.GroupOverrideDetails.GroupsToOverride, []string{"clerk", "a b"}) || len(d.AccessTokenGeneration.ScopesToAdd) != 0 {
				t.Errorf("%+v", d)
			}
		})
	}
	t.Run("client credentials", func(t *testing.T) {
		event := sample(t, sampleV2, map[string]any{"version": "3", "triggerSource": "TokenGeneration_ClientCredentials", "request": map[string]any{
			"clientMetadata": map[string]any{"tenant_id": "globex"}, "scopes": []any{"x/y"}}})
		var got events.CognitoEventUserPoolsPreTokenGenV2_0
		answer(t, w, event, &got)
		d := got.Response.ClaimsAndScopeOverrideDetails
		if d.AccessTokenGeneration.ClaimsToAddOrOverride["tenant_id"] != "acme" || d.IDTokenGeneration.ClaimsToAddOrOverride != nil {
			t.Errorf("%+v", d)
		}
		// A client's name is no user's.
		refused(t, w, sample(t, sampleV2, map[string]any{"request.userAttributes.sub": "1example23456789"}), member.ReasonUnknown)
	})
}

func answer(t *testing.T, w *world, event []byte, into any) {
	t.Helper()
	out, err := w.Cognito(t.Context(), event, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("AWS's type does not read the answer: %v\n%s", err, out)
	}
	var before, after map[string]any
	if err := json.Unmarshal(event, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &after); err != nil {
		t.Fatal(err)
	}
	delete(before, "response")
	delete(after, "response")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the event comes back changed: %s", diff)
	}
}

func refused(t *testing.T, w *world, event []byte, reason member.Reason) {
	t.Helper()
	out, err := w.Cognito(t.Context(), event, "")
	if copse.KindOf(err) != copse.Denied || err == nil || member.ReasonOf(err) != reason || out != nil {
		t.Errorf("%s, %v (%s), want %s", out, err, member.ReasonOf(err), reason)
	}
}

// No token without a tenant.
func TestCognitoRefusals(t *testing.T) {
	w := newWorld(t, "acme", "other")
	refused(t, w, sample(t, sampleV2, nil), member.ReasonUnknown)
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: subject}, Tenant: "acme"})
	refused(t, w, sample(t, sampleV2, map[string]any{"userPoolId": "us-east-1_OTHER"}), member.ReasonIssuer)
	refused(t, w, sample(t, sampleV2, map[string]any{"request.userAttributes": map[string]any{}}), member.ReasonUnknown)
	entry := w.entries["acme"]
	entry.State = copse.TenantSuspended
	w.entries["acme"] = entry
	refused(t, w, sample(t, sampleV2, nil), member.ReasonSuspended)
	w.issuer.Tenants = []copse.TenantID{"other"}
	entry.State = copse.TenantActive
	w.entries["acme"] = entry
	refused(t, w, sample(t, sampleV2, nil), member.ReasonBinding)
	w.issuer.Tenants = []copse.TenantID{"acme"}
	entry.Incarnation = copse.NewIncarnation()
	w.entries["acme"] = entry
	refused(t, w, sample(t, sampleV2, nil), member.ReasonUnknown)
	w.away = &copse.Error{Kind: copse.Unavailable, Detail: "away"}
	if _, err := w.Cognito(t.Context(), sample(t, sampleV2, nil), ""); copse.KindOf(err) != copse.Unavailable {
		t.Errorf("with the directory away: %v", err)
	}
	for _, event := range []string{``, `{}`, `[]`, `{"version":"2"}`, `{"version":"9","triggerSource":"TokenGeneration_HostedAuth","userPoolId":"x"}`,
		`{"version":"2","triggerSource":"TokenGeneration_ClientCredentials","userPoolId":"x"}`, `{"version":"2","triggerSource":"PostConfirmation","userPoolId":"x"}`} {
		if out, err := w.Cognito(t.Context(), []byte(event), ""); copse.KindOf(err) != copse.Invalid {
			t.Errorf("%s: %s %v", event, out, err)
		}
	}
}

// Whatever the attributes and the registration's names are, what is Cognito's own is never emitted.
func TestReservedClaimsAreNeverEmitted(t *testing.T) {
	w := newWorld(t, "acme")
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: subject}, Tenant: "acme", Roles: []string{"r"}, Attributes: map[string]string{"region": "eu"}})
	for _, claim := range []string{"cognito", "dev", "custom", "cognito:x", "sub", "aud", "token_use", "email"} {
		w.issuer.GroupClaim = claim
		out, err := w.Cognito(t.Context(), sample(t, sampleV2, nil), "")
		if err != nil {
			t.Fatal(err)
		}
		var got events.CognitoEventUserPoolsPreTokenGenV2_0
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		for name := range got.Response.ClaimsAndScopeOverrideDetails.AccessTokenGeneration.ClaimsToAddOrOverride {
			if member.Reserved(name) {
				t.Errorf("with groups in %s the claim %s is emitted", claim, name)
			}
		}
	}
}

// The second answer is from memory: no storage is read, and what changes is seen at once.
func TestAnswersFromMemory(t *testing.T) {
	w := newWorld(t, "acme", "globex")
	who := member.Presented{Issuer: pool, Subject: subject, ClientID: "web", Email: "a@example.com", EmailVerified: true}
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: subject}, Tenant: "acme"})
	if _, err := w.Resolve(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	before := w.backend.reads.Load()
	for range 100 {
		if got, err := w.Resolve(t.Context(), who); err != nil || got.Tenant != "acme" {
			t.Fatal(got, err)
		}
	}
	if n := w.backend.reads.Load() - before; n != 0 {
		t.Errorf("%d reads for 100 answers", n)
	}
	if err := w.SetActive(t.Context(), "x", member.Who{Issuer: pool, Subject: subject}, "web", "globex"); copse.KindOf(err) != copse.NotFound {
		t.Errorf("a tenant the member is not in: %v", err)
	}
	if err := w.Remove(t.Context(), access.System(), "acme", member.Who{Issuer: pool, Subject: subject}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Resolve(t.Context(), who); member.ReasonOf(err) != member.ReasonUnknown {
		t.Errorf("after the removal: %v", err)
	}
	// An unknown member is not looked for again and again either.
	before = w.backend.reads.Load()
	for range 100 {
		_, _ = w.Resolve(t.Context(), who)
	}
	if n := w.backend.reads.Load() - before; n > 2 {
		t.Errorf("%d reads for 100 strangers", n)
	}
}
