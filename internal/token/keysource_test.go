package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
)

const fakeIssuer = "https://idp.example/pool"

// site answers for fakeIssuer without a network, so that a synctest bubble can wait for it.
type site struct {
	mu      sync.Mutex
	keys    string
	delay   time.Duration
	broken  error
	fetches []time.Time // of the key set
	running int
	most    int
}

func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	body, delay, broken := s.keys, s.delay, s.broken
	if r.URL.Path == "/pool/.well-known/openid-configuration" {
		body = text(map[string]any{"issuer": fakeIssuer, "jwks_uri": fakeIssuer + "/keys"})
		s.fetches = append(s.fetches, time.Now())
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if broken != nil {
		return nil, broken
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *site) set(f func(*site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *site) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fetches)
}

// timed is a world without a network, inside a synctest bubble.
type timed struct {
	*testing.T
	*Verifier
	site *site
	reg  copse.Issuer
	mu   sync.Mutex
}

func inBubble(t *testing.T, f func(w *timed)) {
	t.Helper()
	rsaKey() // made outside, once
	otherRSA()
	synctest.Test(t, func(t *testing.T) {
		w := &timed{T: t, site: &site{keys: published(rs256())}}
		w.reg = copse.Issuer{
			ID: "i", URL: fakeIssuer, Revision: 1, Tenants: []copse.TenantID{"acme"}, TokenType: copse.TokenAccess,
			Audiences: []string{"api"}, Algorithms: []string{"RS256"}, TenantClaim: "tenant_id", PrincipalType: "User",
		}
		v, err := New(Config{Transport: w.site, Issuer: func(_ context.Context, url string) (copse.Issuer, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if url != w.reg.URL {
				return copse.Issuer{}, copse.NotFoundError(copse.ResourceIssuer, url)
			}
			return w.reg, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		w.Verifier = v
		f(w)
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (w *timed) token(s signer, life time.Duration) string {
	return s.sign(map[string]any{"iss": fakeIssuer, "sub": "alice", "aud": "api", "tenant_id": "acme",
		"exp": time.Now().Add(life).Unix(), "jti": fmt.Sprint(time.Now().UnixNano())}, nil)
}

// want verifies and expects this reason, or success for the empty one.
func (w *timed) want(token string, reason Reason) {
	w.Helper()
	_, err := w.Verify(w.Context(), token)
	if ReasonOf(err) != reason || (err == nil) != (reason == "") {
		w.Errorf("after %v: reason %q (%v), want %q", time.Since(bubbleStart), ReasonOf(err), err, reason)
	}
}

func (w *timed) wantFetches(n int) {
	w.Helper()
	synctest.Wait()
	if got := w.site.count(); got != n {
		w.Errorf("after %v: %d fetches, want %d: %v", time.Since(bubbleStart), got, n, w.site.fetches)
	}
}

// bubbleStart is when every synctest bubble begins.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newSigner(kid string) signer { return signer{kid, jwt.SigningMethodRS256, otherRSA()} }

func TestATokenIsRememberedUntilItExpires(t *testing.T) {
	inBubble(t, func(w *timed) {
		token := w.token(rs256(), 40*time.Second)
		w.want(token, "")
		time.Sleep(40*time.Second - time.Nanosecond)
		w.want(token, "")
		time.Sleep(time.Nanosecond)
		w.want(token, ReasonExpired)
		w.wantFetches(1)
	})
}

// A server that nobody calls any more must not keep what its last callers' tokens said.
func TestExpiredTokensLeaveMemoryWithoutTraffic(t *testing.T) {
	inBubble(t, func(w *timed) {
		held := func() (entries, bytes, rooms int) {
			for i := range w.remembered.shards {
				s := &w.remembered.shards[i]
				s.mu.Lock()
				entries, bytes = entries+len(s.entries), bytes+s.bytes
				if s.entries != nil {
					rooms++
				}
				s.mu.Unlock()
			}
			return entries, bytes, rooms
		}
		time.Sleep(sweepEvery / 2)
		const tokens = 50
		for range tokens {
			w.want(w.token(rs256(), time.Hour), "")
			time.Sleep(time.Nanosecond)
		}
		if entries, _, _ := held(); entries != tokens {
			t.Fatalf("%d entries", entries)
		}
		time.Sleep(sweepEvery / 2) // a sweep that finds nothing: all are still good
		synctest.Wait()
		if entries, _, _ := held(); entries != tokens {
			t.Errorf("%d entries after half a minute", entries)
		}
		time.Sleep(sweepEvery)
		synctest.Wait()
		if entries, bytes, rooms := held(); entries != 0 || bytes != 0 || rooms != 0 {
			t.Errorf("%d entries, %d bytes in %d maps after all expired", entries, bytes, rooms)
		}
		w.want(w.token(rs256(), time.Hour), "")
	})
}

func TestATokenIsLookedAtAgainAfterAMinute(t *testing.T) {
	inBubble(t, func(w *timed) {
		token := w.token(rs256(), time.Hour)
		first, _ := w.Verify(w.Context(), token)
		time.Sleep(rememberFor - time.Nanosecond)
		if again, _ := w.Verify(w.Context(), token); again != first {
			w.Error("verified again within the minute")
		}
		time.Sleep(time.Nanosecond)
		if again, err := w.Verify(w.Context(), token); again == first || err != nil {
			w.Errorf("not looked at again after a minute: %v", err)
		}
	})
}

func TestKeysAreRefreshedWhileInUse(t *testing.T) {
	inBubble(t, func(w *timed) {
		token := w.token(rs256(), 24*time.Hour)
		for range 60 * 6 { // an hour, one look every ten seconds
			w.want(token, "")
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		w.site.set(func(s *site) {
			for i := 1; i < len(s.fetches); i++ {
				if gap := s.fetches[i].Sub(s.fetches[i-1]); gap > freshFor || gap < cooldown {
					w.Errorf("%v between fetches %d and %d", gap, i-1, i)
				}
			}
			if len(s.fetches) < 12 || len(s.fetches) > 16 {
				w.Errorf("%d fetches in an hour", len(s.fetches))
			}
		})
	})
}

func TestUnusedKeysAreNotRefreshed(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.want(w.token(rs256(), time.Minute), "")
		time.Sleep(24 * time.Hour)
		w.wantFetches(1)
		w.want(w.token(rs256(), time.Minute), "")
		w.wantFetches(2)
	})
}

// A key that its issuer withdraws stops verifying within five minutes, remembered tokens included.
func TestAWithdrawnKeyStopsVerifying(t *testing.T) {
	for _, step := range []time.Duration{time.Second, 7 * time.Second, 45 * time.Second, 4*time.Minute + 59*time.Second} {
		t.Run(step.String(), func(t *testing.T) {
			inBubble(t, func(w *timed) {
				token := w.token(rs256(), 24*time.Hour)
				w.want(token, "")
				withdrawn := time.Now()
				w.site.set(func(s *site) { s.keys = published(newSigner("k2")) })
				accepted := 0
				for {
					_, err := w.Verify(w.Context(), token)
					if err != nil {
						if ReasonOf(err) != ReasonUnknownKey {
							w.Errorf("%v", err)
						}
						break
					}
					accepted++
					if time.Since(withdrawn) >= freshFor {
						w.Fatalf("still accepted %v after the key was withdrawn", time.Since(withdrawn))
					}
					time.Sleep(step)
				}
				if accepted == 0 {
					w.Error("never accepted: the test proves nothing")
				}
				w.want(w.token(newSigner("k2"), time.Hour), "")
			})
		})
	}
}

// A refresh that another token causes early ends what is remembered as well.
func TestARefreshEndsWhatIsRemembered(t *testing.T) {
	inBubble(t, func(w *timed) {
		old := w.token(rs256(), time.Hour)
		w.want(old, "")
		time.Sleep(cooldown)
		w.site.set(func(s *site) { s.keys = published(newSigner("k2")) })
		w.want(old, "") // still remembered
		w.want(w.token(newSigner("k2"), time.Hour), "")
		w.want(old, ReasonUnknownKey)
		w.wantFetches(2)
	})
}

func TestAnEmptyKeySetIsBelieved(t *testing.T) {
	inBubble(t, func(w *timed) {
		token := w.token(rs256(), time.Hour)
		w.want(token, "")
		w.site.set(func(s *site) { s.keys = `{"keys":[]}` })
		time.Sleep(freshFor)
		w.want(token, ReasonUnknownKey)
	})
}

func TestUnknownKeysCauseBoundedFetches(t *testing.T) {
	inBubble(t, func(w *timed) {
		good := w.token(rs256(), 24*time.Hour)
		w.want(good, "")
		start := time.Now()
		for i := range 6000 { // ten minutes, ten a second, each with a key id of its own
			w.want(part(fmt.Sprintf(`{"alg":"RS256","kid":"attacker%d"}`, i))+"."+part(`{"iss":"`+fakeIssuer+`"}`)+".c2ln", ReasonUnknownKey)
			time.Sleep(100 * time.Millisecond)
		}
		limit := int(time.Since(start)/cooldown) + 1
		if n := w.site.count(); n > limit || n < limit/2 {
			w.Errorf("%d fetches in %v, want at most one in %v", n, time.Since(start), cooldown)
		}
		w.want(good, "")
	})
}

func TestOneUnknownKeyIsRemembered(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.want(w.token(rs256(), time.Hour), "")
		time.Sleep(cooldown)
		bad := w.token(newSigner("gone"), time.Hour)
		w.want(bad, ReasonUnknownKey)
		w.wantFetches(2)
		for range int(unknownFor/time.Second) - 1 { // past the cool-down, but remembered
			time.Sleep(time.Second)
			w.want(bad, ReasonUnknownKey)
		}
		w.wantFetches(2)
		time.Sleep(time.Second)
		w.want(bad, ReasonUnknownKey)
		w.wantFetches(3)
	})
}

// A key that appears is usable at the first refresh that brings it, however often it was asked for.
func TestARotatedKeyIsFound(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.want(w.token(rs256(), time.Hour), "")
		time.Sleep(cooldown)
		next := w.token(newSigner("k2"), time.Hour)
		w.want(next, ReasonUnknownKey)
		w.site.set(func(s *site) { s.keys = published(rs256(), newSigner("k2")) })
		time.Sleep(unknownFor)
		w.want(next, "")
		w.want(w.token(rs256(), time.Hour), "")
	})
}

// An issuer that signs with a key before it shows it must not be shut out for longer than the
// cool-down: an id that could not be asked for yet is not known to be unknown.
func TestAKeyAskedForTooEarlyIsNotRemembered(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.want(w.token(rs256(), time.Hour), "")
		next := w.token(newSigner("k2"), time.Hour)
		w.want(next, ReasonUnknownKey)
		w.wantFetches(1)
		w.site.set(func(s *site) { s.keys = published(rs256(), newSigner("k2")) })
		time.Sleep(cooldown)
		w.want(next, "")
	})
}

func TestStaleKeysAreUsedForABoundedTime(t *testing.T) {
	inBubble(t, func(w *timed) {
		token := w.token(rs256(), 24*time.Hour)
		w.want(token, "")
		fetched := time.Now()
		w.site.set(func(s *site) { s.broken = errors.New("unreachable"); s.delay = 2 * time.Second })
		slow := 0
		for time.Since(fetched) < staleFor-3*time.Second {
			before := time.Now()
			w.want(token, "")
			if time.Since(before) > 0 {
				slow++
			}
			time.Sleep(time.Second)
		}
		if slow > 1 {
			w.Errorf("%d calls waited for an issuer that was known to be unreachable", slow)
		}
		time.Sleep(time.Until(fetched.Add(staleFor)))
		w.want(token, ReasonKeys)
		w.want(w.token(rs256(), time.Hour), ReasonKeys)
		synctest.Wait()
		w.site.set(func(s *site) {
			for i := 2; i < len(s.fetches); i++ {
				if gap := s.fetches[i].Sub(s.fetches[i-1]); gap < cooldown {
					w.Errorf("only %v between two attempts", gap)
				}
			}
		})
		w.site.set(func(s *site) { s.broken = nil })
		time.Sleep(cooldown)
		w.want(token, "")
	})
}

func TestAnIssuerThatIsUnreachableFromTheStart(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.site.set(func(s *site) { s.broken = errors.New("unreachable") })
		token := w.token(rs256(), time.Hour)
		for range 9 {
			_, err := w.Verify(w.Context(), token)
			if copse.KindOf(err) != copse.Unavailable || ReasonOf(err) != ReasonKeys {
				w.Errorf("%v", err)
			}
			if strings.Contains(err.Error(), "unreachable") {
				w.Errorf("%q tells callers what happens inside", err)
			}
			time.Sleep(time.Second)
		}
		w.wantFetches(1)
		w.site.set(func(s *site) { s.broken = nil })
		time.Sleep(time.Second)
		w.want(token, "")
		w.wantFetches(2)
	})
}

func TestAFetchEndsInTime(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.site.set(func(s *site) { s.delay = time.Hour })
		before := time.Now()
		w.want(w.token(rs256(), time.Hour), ReasonKeys)
		if took := time.Since(before); took != fetchTimeout {
			w.Errorf("took %v, want %v", took, fetchTimeout)
		}
		// Both documents share the time: each alone is quick enough here.
		w.site.set(func(s *site) { s.delay = fetchTimeout * 2 / 3 })
		time.Sleep(cooldown)
		before = time.Now()
		w.want(w.token(rs256(), time.Hour), ReasonKeys)
		if took := time.Since(before); took != fetchTimeout {
			w.Errorf("took %v, want %v", took, fetchTimeout)
		}
	})
}

func TestACallerStopsWaitingOnItsOwn(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.site.set(func(s *site) { s.delay = time.Second })
		token := w.token(rs256(), time.Hour)
		ctx, cancel := context.WithTimeout(w.Context(), 100*time.Millisecond)
		defer cancel()
		before := time.Now()
		_, err := w.Verify(ctx, token)
		if copse.KindOf(err) != copse.Unavailable || time.Since(before) != 100*time.Millisecond {
			w.Errorf("%v after %v", err, time.Since(before))
		}
		w.want(token, "") // the fetch itself went on
		w.wantFetches(1)
	})
}

func TestManyCallersShareOneFetch(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.site.set(func(s *site) { s.delay = time.Second })
		token := w.token(rs256(), time.Hour)
		for range 2 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { w.want(token, "") })
			}
			wg.Wait()
			time.Sleep(freshFor + time.Second) // then again with keys that have aged
		}
		w.wantFetches(2)
		if w.site.most != 1 {
			w.Errorf("%d fetches at one time", w.site.most)
		}
	})
}

func TestAChangedRegistrationEmptiesWhatIsRemembered(t *testing.T) {
	changes := map[string]func(*copse.Issuer){
		"tenant taken away": func(i *copse.Issuer) { i.Tenants = nil; i.Revision++ },
		// Removed and registered again: the revision starts over, and so must everything else.
		"registered anew": func(i *copse.Issuer) { i.Tenants = nil; i.CreatedAt = i.CreatedAt.Add(time.Second) },
		"another update":  func(i *copse.Issuer) { i.Tenants = nil; i.UpdatedAt = i.UpdatedAt.Add(time.Second) },
		"another id":      func(i *copse.Issuer) { i.Tenants = nil; i.ID = "j" },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *timed) {
				token := w.token(rs256(), time.Hour)
				w.want(token, "")
				w.mu.Lock()
				change(&w.reg)
				w.mu.Unlock()
				w.want(token, ReasonTenant)
			})
		})
	}
	t.Run("removed", func(t *testing.T) {
		inBubble(t, func(w *timed) {
			token := w.token(rs256(), time.Hour)
			w.want(token, "")
			w.mu.Lock()
			w.reg.URL = "https://idp.example/other"
			w.mu.Unlock()
			w.want(token, ReasonIssuer)
		})
	})
}

func TestAfterCloseNothingIsFetched(t *testing.T) {
	inBubble(t, func(w *timed) {
		if err := w.Close(); err != nil {
			w.Error(err)
		}
		w.want(w.token(rs256(), time.Hour), ReasonKeys)
		w.wantFetches(0)
	})
}

func TestCloseEndsAFetch(t *testing.T) {
	inBubble(t, func(w *timed) {
		w.site.set(func(s *site) { s.delay = time.Hour })
		done := make(chan error)
		go func() {
			_, err := w.Verify(context.Background(), w.token(rs256(), time.Hour))
			done <- err
		}()
		synctest.Wait()
		if err := w.Close(); err != nil {
			w.Error(err)
		}
		if err := <-done; copse.KindOf(err) != copse.Unavailable {
			w.Error(err)
		}
	})
}

func TestAPanicOverAKeySetIsAFailedFetch(t *testing.T) {
	inBubble(t, func(w *timed) {
		source := w.source(fakeIssuer)
		source.fetch = func(context.Context, string) (*keySet, error) { panic("document of death") }
		w.want(w.token(rs256(), time.Hour), ReasonKeys)
	})
}
