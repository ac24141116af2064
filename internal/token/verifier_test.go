package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

func es256() signer { return signer{"ec", jwt.SigningMethodES256, ecKey()} }

// Once a registration has changed, no call that begins later may be answered under the former one.
func TestAChangedRegistrationUnderLoad(t *testing.T) {
	w := newWorld(t)
	token := w.good()
	w.wantAccepted(t, token)
	const rounds = 200
	for round := range rounds {
		var revoked atomic.Bool
		var wg sync.WaitGroup
		errs := make(chan error, 4)
		for range 4 {
			wg.Go(func() {
				for range 1_000_000 {
					was := revoked.Load()
					_, err := w.Verify(context.Background(), token)
					switch {
					case was && err == nil:
						errs <- errors.New("accepted after the tenant was taken away")
						return
					case was:
						return
					case err != nil && ReasonOf(err) != ReasonTenant:
						errs <- err
						return
					}
				}
				errs <- errors.New("never saw the change")
			})
		}
		w.register(w.issuer, func(i *copse.Issuer) { i.Tenants = nil })
		revoked.Store(true)
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Fatalf("round %d: %v", round, err)
		}
		w.register(w.issuer, func(i *copse.Issuer) { i.Tenants = []copse.TenantID{"acme"} })
		w.wantAccepted(t, token)
	}
}

// Many issuers with keys of one id each: none may ever verify another's token, with all caches warm.
func TestIssuersNeverMix(t *testing.T) {
	w := newWorld(t)
	const issuers = 12
	var urls []string
	var signers []signer
	for i := range issuers {
		s := signer{"k1", jwt.SigningMethodES256, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
		url := w.publish(fmt.Sprintf("/tenant%d", i), published(s))
		w.register(url, func(iss *copse.Issuer) {
			iss.Algorithms, iss.Tenants = []string{"ES256"}, []copse.TenantID{copse.TenantID(fmt.Sprintf("t%d", i))}
		})
		urls, signers = append(urls, url), append(signers, s)
	}
	var wg sync.WaitGroup
	var accepted, refused atomic.Int64
	for worker := range 4 {
		wg.Go(func() {
			for n := range issuers * issuers * 3 {
				i, j := (n+worker)%issuers, n/issuers%issuers
				token := signers[j].sign(w.claims(map[string]any{"iss": urls[i], "tenant_id": fmt.Sprintf("t%d", i)}), nil)
				v, err := w.Verify(context.Background(), token)
				switch {
				case i == j && (err != nil || v.Issuer != urls[i] || v.Tenant != copse.TenantID(fmt.Sprintf("t%d", i))):
					t.Errorf("own key: %+v, %v", v, err)
				case i == j:
					accepted.Add(1)
				case ReasonOf(err) != ReasonSignature:
					t.Errorf("issuer %d with the key of %d: %+v, %v", i, j, v, err)
				default:
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if accepted.Load() < issuers*4 || refused.Load() < issuers*issuers {
		t.Errorf("%d accepted, %d refused", accepted.Load(), refused.Load())
	}
}

func TestForgetTenant(t *testing.T) {
	w := newWorld(t)
	w.register(w.issuer, func(i *copse.Issuer) { i.Tenants = append(i.Tenants, "globex") })
	acme, globex := w.good(), rs256().sign(w.claims(map[string]any{"tenant_id": "globex"}), nil)
	w.wantAccepted(t, acme)
	w.wantAccepted(t, globex)
	w.ForgetTenant("acme")
	held := map[copse.TenantID]int{}
	w.remembered.forget(func(e *entry) bool { held[e.verified.Tenant]++; return false })
	if held["acme"] != 0 || held["globex"] != 1 {
		t.Errorf("remembered: %v", held)
	}
	w.wantAccepted(t, acme)
}

func TestIssuedAt(t *testing.T) {
	for name, c := range map[string]struct {
		iat  any
		want time.Time
	}{
		"seconds":         {1700000000, time.Unix(1700000000, 0)},
		"with a fraction": {1700000000.5, time.Unix(1700000000, 5e8)},
		"in 1970":         {0, time.Unix(0, 0)},
		"not said":        {nil, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			token := rs256().sign(w.claims(map[string]any{"iat": c.iat}), nil)
			for range 2 { // verified, and remembered
				if got := w.wantAccepted(t, token).IssuedAt; !got.Equal(c.want) {
					t.Errorf("issued at %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r remembered
		now := time.Now()
		big := make([]byte, 64<<10)
		size := func() (entries, bytes int) {
			for i := range r.shards {
				entries += len(r.shards[i].entries)
				bytes += r.shards[i].bytes
			}
			return entries, bytes
		}
		put := func(i, life int) {
			d := digest{byte(i), byte(i >> 8), byte(i >> 16)}
			r.put(&d, &entry{verified: &Verified{Context: copse.Data{Bytes: big}}, until: now.Add(time.Duration(life) * time.Second)}, now)
		}
		for i := range 4 * rememberedBytes / len(big) {
			put(i, 60)
		}
		entries, bytes := size()
		if bytes > rememberedBytes || bytes < rememberedBytes/2 {
			t.Errorf("%d bytes in %d entries", bytes, entries)
		}
		// What has expired makes room by itself, long before memory is short.
		r.forget(func(*entry) bool { return true })
		if entries, bytes := size(); entries != 0 || bytes != 0 {
			t.Fatalf("%d entries, %d bytes after forgetting all", entries, bytes)
		}
		big = nil
		for i := range 20_000 {
			now = now.Add(10 * time.Millisecond)
			put(i, 1)
		}
		if entries, _ := size(); entries > 3000 { // 100 live at one time
			t.Errorf("%d entries, nearly all expired", entries)
		}
	})
}

func TestSourcesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = v.Close() }()
		for i := range maxSources + 5 {
			v.source(fmt.Sprint(i))
		}
		if len(v.sources) != maxSources {
			t.Errorf("%d sources held", len(v.sources))
		}
		time.Sleep(staleFor + 1)
		v.source("fresh")
		if len(v.sources) != 1 {
			t.Errorf("%d sources held after all but one were long unused", len(v.sources))
		}
	})
}

func TestMetricsNameNobody(t *testing.T) {
	w := newWorld(t)
	w.wantAccepted(t, w.good())
	w.wantRefused(t, "x", ReasonMalformed)
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]map[string]bool{"reason": {}, "result": {fetchOK: true, fetchFailed: true}}
	for _, reason := range Reasons() {
		allowed["reason"][string(reason)] = true
	}
	if len(families) != 6 {
		t.Errorf("%d metrics", len(families))
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if !allowed[label.GetName()][label.GetValue()] {
					t.Errorf("%s has the label %s=%q", family.GetName(), label.GetName(), label.GetValue())
				}
			}
		}
	}
	if _, err := New(Config{Metrics: w.registry}); err == nil {
		t.Error("two verifiers on one registry must be told apart")
	}
	if _, err := New(Config{Metrics: prometheus.NewRegistry()}); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	w := newWorld(b)
	w.Verifier.issuer = fixedIssuer(w)
	token := w.good()
	w.wantAccepted(b, token)
	ctx := b.Context()
	b.SetBytes(int64(len(token)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Verify(ctx, token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyAnew(b *testing.B) {
	w := newWorld(b)
	w.Verifier.issuer = fixedIssuer(w)
	token := w.good()
	w.wantAccepted(b, token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.verifyAnew(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// fixedIssuer answers without the lock and the map of the tests' registry.
func fixedIssuer(w *world) func(context.Context, string) (copse.Issuer, error) {
	iss, err := w.lookup(context.Background(), w.issuer)
	return func(context.Context, string) (copse.Issuer, error) { return iss, err }
}

// The target of the remembered path: few allocations, whatever the token's size.
func TestARememberedTokenCostsNoAllocation(t *testing.T) {
	w := newWorld(t)
	w.Verifier.issuer = fixedIssuer(w)
	token := w.good()
	w.wantAccepted(t, token)
	if n := testing.AllocsPerRun(200, func() { _, _ = w.Verify(context.Background(), token) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
