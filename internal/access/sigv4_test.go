package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// verifier is a server that does nothing but verify, the way the transports do. It answers the
// reason for a refusal, or the caller's key id.
func verifier(t *testing.T, s *Service) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, err := s.PrecheckSigV4(r.Context(), r); err != nil {
			answer(w, err, "precheck")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			answer(w, err, "body")
			return
		}
		caller, err := s.SigV4(r.Context(), r, body)
		if err != nil {
			answer(w, err, "signature")
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Key-Id", caller.KeyID)
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(server.Close)
	return server
}

func answer(w http.ResponseWriter, err error, stage string) {
	w.Header().Set("X-Stage", stage)
	w.Header().Set("X-Reason", string(ReasonOf(err)))
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// call is a request before it is signed.
type call struct {
	method, target, body string
	header               http.Header
	id, secret           string
	service, region      string
	at                   time.Time
	contentHash          bool // send X-Amz-Content-Sha256, as some SDKs do
	sessionToken         string
}

func newCall(id string, secret Secret) call {
	return call{
		method: "POST", target: "/", body: `{"policyStoreId":"ps1"}`,
		header: http.Header{
			"Content-Type": {"application/x-amz-json-1.0"},
			"X-Amz-Target": {"VerifiedPermissions.GetPolicyStore"},
		},
		id: id, secret: string(secret), service: "verifiedpermissions", region: "eu-central-1", at: time.Now(),
	}
}

// sign makes the request and signs it with AWS's own signer.
func (c call) sign(t testing.TB, base string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), c.method, base+c.target, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = c.header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	sum := sha256.Sum256([]byte(c.body))
	hash := hex.EncodeToString(sum[:])
	if c.contentHash {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	creds := aws.Credentials{AccessKeyID: c.id, SecretAccessKey: c.secret, SessionToken: c.sessionToken}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, c.service, c.region, c.at); err != nil {
		t.Fatal(err)
	}
	return r
}

// send returns the reason for a refusal and the stage it came from; both empty when accepted.
func send(t *testing.T, r *http.Request) (Reason, string) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Logf("%s: %s", resp.Header.Get("X-Reason"), bytes.TrimSpace(text))
		if resp.Header.Get("X-Stage") == "" {
			return Reason(resp.Status), "net/http"
		}
	}
	return Reason(resp.Header.Get("X-Reason")), resp.Header.Get("X-Stage")
}

func TestSigV4AcceptsWhatTheSDKSigns(t *testing.T) {
	s := newService(t)
	server := verifier(t, s)
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read | Write})
	for name, adjust := range map[string]func(*call){
		"AVP":                     func(*call) {},
		"with a content hash":     func(c *call) { c.contentHash = true },
		"root key":                func(c *call) { c.id, c.secret = rootID, rootSecret },
		"another region":          func(c *call) { c.region = "us-gov-west-1" },
		"empty body":              func(c *call) { c.method, c.body, c.target = "GET", "", "/v1/tenants" },
		"large body":              func(c *call) { c.body = strings.Repeat("x", 1<<20) },
		"body of any bytes":       func(c *call) { c.body = "\x00\xff\r\n" },
		"sorted query":            func(c *call) { c.target = "/v1/tenants?maxResults=10&nextToken=abc" },
		"unsorted query":          func(c *call) { c.target = "/v1/tenants?z=1&a=2&m=3" },
		"repeated names":          func(c *call) { c.target = "/v1/tenants?a=2&a=1&a=10&a" },
		"order after escaping":    func(c *call) { c.target = "/v1/tenants?a=a/b&a=a-b&a%2Fb=1&a-b=2" },
		"spaces in the query":     func(c *call) { c.target = "/v1/tenants?a=b%20c&d=e+f" },
		"escapes in the query":    func(c *call) { c.target = "/v1/tenants?a=%2B%25%26%3D%C3%BC&t=a%2fb" },
		"path with a colon":       func(c *call) { c.target = "/v1/tenants/acme:eu@prod" },
		"escaped slash in path":   func(c *call) { c.target = "/v1/policy-stores/a%2Fb/contents" },
		"escapes in the path":     func(c *call) { c.target = "/v1/tenants/%C3%BC%20x%2Bx+%61" },
		"trailing slash":          func(c *call) { c.target = "/v1/tenants/" },
		"PUT with If-Match":       func(c *call) { c.method = "PUT"; c.header.Set("If-Match", `"17"`) },
		"spaces inside a header":  func(c *call) { c.header.Set("X-Amz-Meta", "  a   b    c ") },
		"a header sent in pieces": func(c *call) { c.header["X-Other"] = []string{"a", " b ", "c  d"} },
		"no content type":         func(c *call) { c.header.Del("Content-Type") },
		"almost too old":          func(c *call) { c.at = c.at.Add(-window + 20*time.Second) },
		"almost too early":        func(c *call) { c.at = c.at.Add(window - 20*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCall(made.ID, secret)
			adjust(&c)
			for range 2 { // the second time with the signing key remembered
				if reason, stage := send(t, c.sign(t, server.URL)); reason != "" || stage != "" {
					t.Errorf("refused at %s: %s", stage, reason)
				}
			}
		})
	}
}

func TestSigV4AcceptsAnUnmodifiedClient(t *testing.T) {
	s := newService(t)
	server := verifier(t, s)
	client := verifiedpermissions.New(verifiedpermissions.Options{
		BaseEndpoint: aws.String(server.URL), Region: "eu-west-1",
		Credentials: credentials.NewStaticCredentialsProvider(rootID, rootSecret, ""),
	})
	if _, err := client.GetPolicyStore(t.Context(), &verifiedpermissions.GetPolicyStoreInput{PolicyStoreId: aws.String("ps1")}); err != nil {
		t.Error(err)
	}
}

func TestSigV4RefusesTamperedRequests(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newService(t, func(c *Config) { c.Metrics = registry })
	server := verifier(t, s)
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	cases := tamperings()
	if len(cases) < 75 {
		t.Fatalf("only %d cases: a name is there twice", len(cases))
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if reason, stage := send(t, newCall(made.ID, secret).sign(t, server.URL)); reason != "" {
				t.Fatalf("the untampered twin is refused at %s: %s", stage, reason)
			}
			attack := newCall(made.ID, secret)
			if c.before != nil {
				twin := attack
				c.before(&attack)
				// Where before only prepares, what it prepared must pass as it is.
				if c.after != nil && attack.service == twin.service && attack.at.Equal(twin.at) {
					if reason, stage := send(t, attack.sign(t, server.URL)); reason != "" {
						t.Fatalf("the prepared twin is refused at %s: %s", stage, reason)
					}
				}
			}
			r := attack.sign(t, server.URL)
			if c.after != nil {
				c.after(t, r)
			}
			before := failureCounts(t, registry)[string(c.want)]
			reason, stage := send(t, r)
			if reason != c.want || c.stage != "" && stage != c.stage {
				t.Errorf("%q at %q, want %q at %q", reason, stage, c.want, c.stage)
			}
			if got := failureCounts(t, registry)[string(c.want)] - before; got != 1 {
				t.Errorf("counted %v times, want once", got)
			}
		})
	}
}

func TestSigV4RegionWhenOneIsConfigured(t *testing.T) {
	s := newService(t, func(c *Config) { c.Region = "eu-central-1" })
	server := verifier(t, s)
	c := newCall(rootID, rootSecret)
	if reason, _ := send(t, c.sign(t, server.URL)); reason != "" {
		t.Fatal(reason)
	}
	c.region = "eu-central-2"
	if reason, _ := send(t, c.sign(t, server.URL)); reason != InvalidSignature {
		t.Errorf("another region: %q", reason)
	}
}

func TestSigV4WindowIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		c := newCall(rootID, rootSecret)
		c.at = time.Now().Truncate(time.Second)
		verify := func() error {
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			signed := c.sign(t, "http://"+r.Host)
			r.Header = signed.Header
			if _, _, err := s.PrecheckSigV4(t.Context(), r); err != nil {
				return err
			}
			_, err := s.SigV4(t.Context(), r, []byte(c.body))
			return err
		}
		if err := verify(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(c.at.Add(window)))
		if err := verify(); err != nil {
			t.Errorf("five minutes old: %v", err)
		}
		time.Sleep(time.Nanosecond)
		wantReason(t, verify(), RequestExpired)
		c.at = time.Now().Add(window).Truncate(time.Second)
		if err := verify(); err != nil {
			t.Errorf("five minutes early: %v", err)
		}
		c.at = c.at.Add(time.Second)
		wantReason(t, verify(), RequestExpired)
	})
}

// A key revoked between the two looks at a request must not pass the second.
func TestSigV4RevokedAndExpiredKeys(t *testing.T) {
	s := newService(t)
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	c := newCall(made.ID, secret)
	r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
	r.Header = c.sign(t, "http://"+r.Host).Header
	for range 2 {
		if _, _, err := s.PrecheckSigV4(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SigV4(t.Context(), r, []byte(c.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RevokeKey(t.Context(), System(), made.ID); err != nil {
		t.Fatal(err)
	}
	_, err := s.SigV4(t.Context(), r, []byte(c.body))
	wantReason(t, err, UnrecognizedClient)
	wantReason(t, errOfPrecheck(t, s, r), UnrecognizedClient)
	wantKind(t, err, copse.Unauthenticated)
}

// Who knows only the id of a busy key must not be able to make each of its calls derive again.
func TestOnlyGoodSignaturesAreRemembered(t *testing.T) {
	s := newService(t)
	verify := func(c call) error {
		r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		r.Header = c.sign(t, "http://"+r.Host).Header
		_, err := s.SigV4(t.Context(), r, []byte(c.body))
		return err
	}
	good, bad := newCall(rootID, rootSecret), newCall(rootID, newSecret())
	if err := verify(good); err != nil {
		t.Fatal(err)
	}
	derived := s.root.derived.Load()
	bad.region = "elsewhere-1"
	wantReason(t, verify(bad), InvalidSignature)
	if s.root.derived.Load() != derived {
		t.Error("a bad signature's key took the place of a good one's")
	}
	good.region = "elsewhere-1"
	if err := verify(good); err != nil || s.root.derived.Load() == derived {
		t.Errorf("a good signature's key is not remembered: %v", err)
	}
}

func TestSigV4NamesTheSkew(t *testing.T) {
	s := newService(t)
	c := newCall(rootID, rootSecret)
	c.at = time.Now().Add(-time.Hour)
	r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
	r.Header = c.sign(t, "http://"+r.Host).Header
	_, _, err := s.PrecheckSigV4(t.Context(), r)
	// AWS clients read their clock skew from this wording.
	if err == nil || !strings.HasPrefix(err.Error(), "Signature expired: "+r.Header.Get("X-Amz-Date")+" is now earlier than ") {
		t.Errorf("%v", err)
	}
}

func TestNothingOfTheBodyIsReadBeforeThePrecheck(t *testing.T) {
	s := newService(t)
	r := httptest.NewRequest("POST", "/", failingBody{})
	wantReason(t, errOfPrecheck(t, s, r), MissingAuthenticationToken)
	signed := newCall(newKeyID(), newSecret()).sign(t, "http://"+r.Host)
	r.Header = signed.Header
	wantReason(t, errOfPrecheck(t, s, r), UnrecognizedClient)
}

type failingBody struct{}

func (failingBody) Read([]byte) (int, error) { panic("the body was read") }

func BenchmarkSigV4(b *testing.B) {
	s, err := New(Config{MasterKey: testMaster(1), RootID: rootID, Root: rootSecret, Backend: memory.New()})
	if err != nil {
		b.Fatal(err)
	}
	c := newCall(rootID, rootSecret)
	r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
	r.Header = c.sign(b, "http://"+r.Host).Header
	body := []byte(c.body)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.PrecheckSigV4(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		if _, err := s.SigV4(b.Context(), r, body); err != nil {
			b.Fatal(err)
		}
	}
}

func errOfPrecheck(t *testing.T, s *Service, r *http.Request) error {
	t.Helper()
	_, _, err := s.PrecheckSigV4(t.Context(), r)
	return err
}
