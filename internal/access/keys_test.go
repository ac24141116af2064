package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestKeyLifecycle(t *testing.T) {
	s := newService(t)
	made, secret := createKey(t, s, Key{Description: "ci", Scope: Scope{Tenant: "acme"}, Verbs: Read | Write})
	if !regexp.MustCompile(`^CPK[A-Z2-7]{17}$`).MatchString(made.ID) {
		t.Errorf("id %q", made.ID)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9]{40}$`).MatchString(string(secret)) {
		t.Error("the secret is not 40 letters and digits")
	}
	credential := string(FormatBearer(made.ID, secret))
	caller, err := s.Bearer(t.Context(), credential)
	if err != nil {
		t.Fatal(err)
	}
	want := Caller{KeyID: made.ID, Scope: Scope{Tenant: "acme"}, Verbs: Read | Write}
	if diff := cmp.Diff(want, caller); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	listed, more, err := s.ListKeys(t.Context(), System(), "", 10)
	if err != nil || more {
		t.Fatal(err, more)
	}
	if used := listed[0].LastUsedAt; used.IsZero() {
		t.Error("used, and listed as if it never was")
	}
	listed[0].LastUsedAt = time.Time{}
	if diff := cmp.Diff([]Key{made}, listed); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if err := s.RevokeKey(t.Context(), System(), made.ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Bearer(t.Context(), credential)
	wantReason(t, err, InvalidCredential)
	wantKind(t, s.RevokeKey(t.Context(), System(), made.ID), copse.NotFound)
}

func TestKeysSurviveARestart(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	made, secret := createKey(t, newService(t, over(backend)), Key{
		Scope: Scope{PolicyStore: "ps1"}, Verbs: Decide, ExpiresAt: time.Now().Add(time.Hour)})
	again := newService(t, over(backend))
	caller, err := again.Bearer(t.Context(), string(FormatBearer(made.ID, secret)))
	if err != nil {
		t.Fatal(err)
	}
	if !caller.May(Decide, "ps1", "") || caller.May(Read, "ps1", "") || caller.May(Decide, "ps2", "") {
		t.Errorf("scope or verbs changed: %+v", caller)
	}
	if _, err := New(Config{Backend: backend, MasterKey: testMaster(8)}); err == nil ||
		!strings.Contains(err.Error(), "master key") {
		t.Errorf("another master key: %v", err)
	}
}

func TestStoredSecretsAreSealed(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	s := newService(t, over(backend))
	one, secretOne := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Admin})
	two, secretTwo := createKey(t, s, Key{Scope: Scope{Tenant: "b"}, Verbs: Read})
	ctx, directory := t.Context(), storage.Directory()
	itemOne, err := backend.Get(ctx, directory, storage.Key{Kind: keyKind, ID: one.ID})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(itemOne.Body, []byte(secretOne)) {
		t.Error("the secret is stored in the clear")
	}
	// Whoever can write the database must not be able to give a key of his another one's authority:
	// a sealed secret opens under its own id only.
	head, err := backend.Head(ctx, directory)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bearer(ctx, string(FormatBearer(two.ID, secretTwo))); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.Commit(ctx, storage.Commit{Partition: directory, Incarnation: head.Incarnation, Actor: "test", Operation: "test",
		Writes: []storage.Write{{Key: storage.Key{Kind: keyKind, ID: two.ID}, Body: itemOne.Body, Expect: storage.Any()}}}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Bearer(ctx, string(FormatBearer(two.ID, secretOne)))
	wantReason(t, err, Unavailable)
}

func TestRevokedSecretsLeaveTheHistory(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	s := newService(t, over(backend))
	made, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Admin})
	inHistory := func() bool {
		rows, err := backend.History(t.Context(), storage.Directory(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if row.Key.ID == made.ID || bytes.Contains(row.Body, []byte("sealed")) {
				return true
			}
		}
		return false
	}
	if !inHistory() {
		t.Fatal("a key that was made is not in the history: the test proves nothing")
	}
	if err := s.RevokeKey(t.Context(), System(), made.ID); err != nil {
		t.Fatal(err)
	}
	if inHistory() {
		t.Error("a revoked key is still in the history")
	}
}

func TestCreateKeyRefuses(t *testing.T) {
	good := Key{Scope: Scope{Tenant: "acme"}, Verbs: Read}
	for name, adjust := range map[string]func(*Key){
		"admin over one tenant":       func(k *Key) { k.Verbs = Admin },
		"admin over one policy store": func(k *Key) { k.Scope = Scope{PolicyStore: "ps"}; k.Verbs = Read | Admin },
		"no scope":                    func(k *Key) { k.Scope = Scope{} },
		"two scopes":                  func(k *Key) { k.Scope.PolicyStore = "ps" },
		"all and a tenant":            func(k *Key) { k.Scope.All = true },
		"bad tenant":                  func(k *Key) { k.Scope.Tenant = "-x" },
		"bad policy store":            func(k *Key) { k.Scope = Scope{PolicyStore: "a b"} },
		"no verb":                     func(k *Key) { k.Verbs = 0 },
		"unknown verb":                func(k *Key) { k.Verbs = 1 << 6 },
		"expired":                     func(k *Key) { k.ExpiresAt = time.Now().Add(-time.Second) },
		"long description":            func(k *Key) { k.Description = strings.Repeat("x", 151) },
		"description not UTF-8":       func(k *Key) { k.Description = "\xff" },
		"description with newline":    func(k *Key) { k.Description = "a\nb" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			createKey(t, s, good)
			k := good
			adjust(&k)
			_, _, err := s.CreateKey(t.Context(), System(), k)
			wantKind(t, err, copse.Invalid)
			if listed, _, _ := s.ListKeys(t.Context(), System(), "", 10); len(listed) != 1 {
				t.Errorf("%d keys stored, want the good one only", len(listed))
			}
		})
	}
}

func TestOnlyAdministratorsHandleKeys(t *testing.T) {
	s := newService(t)
	made, _ := createKey(t, s, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	for name, c := range map[string]Caller{
		"nobody":                   {},
		"admin verb on one tenant": {Scope: Scope{Tenant: "acme"}, Verbs: Admin},
		"all, without admin":       {Scope: Scope{All: true}, Verbs: Read | Write | Decide},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.CreateKey(t.Context(), c, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
			wantKind(t, err, copse.Denied)
			_, _, err = s.ListKeys(t.Context(), c, "", 10)
			wantKind(t, err, copse.Denied)
			wantKind(t, s.RevokeKey(t.Context(), c, made.ID), copse.Denied)
		})
	}
	if err := s.RevokeKey(t.Context(), System(), made.ID); err != nil {
		t.Error(err)
	}
}

func TestListKeysPages(t *testing.T) {
	s := newService(t)
	want := map[string]bool{}
	for range 7 {
		k, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		want[k.ID] = true
	}
	after, pages := "", 0
	for {
		keys, more, err := s.ListKeys(t.Context(), System(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		pages++
		for _, k := range keys {
			if !want[k.ID] || k.ID <= after {
				t.Errorf("key %s listed twice, out of order, or never made", k.ID)
			}
			delete(want, k.ID)
			after = k.ID
		}
		if !more {
			break
		}
	}
	if len(want) != 0 || pages != 3 {
		t.Errorf("%d keys not listed, in %d pages", len(want), pages)
	}
	_, _, err := s.ListKeys(t.Context(), System(), "", 0)
	wantKind(t, err, copse.Invalid)
}

func TestExpiredKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read, ExpiresAt: time.Now().Add(time.Minute)})
		credential := string(FormatBearer(made.ID, secret))
		time.Sleep(time.Minute - time.Nanosecond)
		if _, err := s.Bearer(t.Context(), credential); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Nanosecond)
		_, err := s.Bearer(t.Context(), credential)
		wantReason(t, err, ExpiredToken)
		_, err = s.Bearer(t.Context(), credential+"x")
		wantReason(t, err, InvalidCredential) // only the holder of the secret learns that it has expired
	})
}

func TestRootKeyWins(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	made, secret := createKey(t, newService(t, over(backend)), Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	s := newService(t, over(backend), func(c *Config) { c.RootID = made.ID })
	caller, err := s.Bearer(t.Context(), string(FormatBearer(made.ID, rootSecret)))
	if err != nil {
		t.Fatal(err)
	}
	if !caller.MayEverywhere(Read | Write | Decide | Admin) {
		t.Errorf("the root key may not do everything: %+v", caller)
	}
	_, err = s.Bearer(t.Context(), string(FormatBearer(made.ID, secret)))
	wantReason(t, err, InvalidCredential)
	wantKind(t, s.RevokeKey(t.Context(), System(), made.ID), copse.InvalidState)
}

func TestBearer(t *testing.T) {
	s := newService(t)
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	good := string(FormatBearer(made.ID, secret))
	unknown := newKeyID()
	for name, credential := range map[string]string{
		"wrong secret":        "copse_" + made.ID + "_" + string(newSecret()),
		"empty secret":        "copse_" + made.ID + "_",
		"secret's prefix":     good[:len(good)-1],
		"secret and more":     good + "A",
		"another's id":        "copse_" + rootID + "_" + string(secret),
		"unknown id":          "copse_" + unknown + "_" + string(secret),
		"id in lower case":    "copse_" + strings.ToLower(made.ID) + "_" + string(secret),
		"no prefix":           made.ID + "_" + string(secret),
		"prefix in capitals":  "COPSE_" + made.ID + "_" + string(secret),
		"id only":             "copse_" + made.ID,
		"with a scheme":       "Bearer " + good,
		"space after":         good + " ",
		"very long":           "copse_" + made.ID + "_" + strings.Repeat("x", 1<<20),
		"NUL inside":          "copse_" + made.ID + "\x00_" + string(secret),
		"id that is too long": "copse_" + strings.Repeat("A", 129) + "_" + string(secret),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Bearer(t.Context(), good); err != nil {
				t.Fatalf("untampered: %v", err)
			}
			caller, err := s.Bearer(t.Context(), credential)
			wantKind(t, err, copse.Unauthenticated)
			wantReason(t, err, InvalidCredential)
			if err.Error() != errBadCredential().Error() {
				t.Errorf("%q tells more than that it is refused", err)
			}
			if diff := cmp.Diff(Caller{}, caller); diff != "" {
				t.Errorf("a caller besides the error: %s", diff)
			}
		})
	}
	_, err := s.Bearer(t.Context(), "")
	wantReason(t, err, MissingAuthenticationToken)
	if _, err := s.Bearer(t.Context(), string(FormatBearer(rootID, rootSecret))); err != nil {
		t.Errorf("root: %v", err)
	}
}

func TestANewKeyWorksAtOnceAlthoughItsIDWasUnknown(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	// Two Services share the backend, as two processes will: the second learns by the feed.
	one, two := newService(t, over(backend)), newService(t, over(backend))
	for range 50 {
		made, secret := createKey(t, one, Key{Scope: Scope{All: true}, Verbs: Read})
		credential := string(FormatBearer(made.ID, secret))
		if _, err := two.Bearer(t.Context(), credential); err != nil {
			t.Fatal(err)
		}
		if err := one.RevokeKey(t.Context(), System(), made.ID); err != nil {
			t.Fatal(err)
		}
		_, err := two.Bearer(t.Context(), credential)
		wantReason(t, err, InvalidCredential)
	}
}

// After RevokeKey has returned, no call may begin that still succeeds, whatever was being loaded.
func TestRevocationIsEffectiveBeforeItReturns(t *testing.T) {
	s := newService(t)
	const rounds, readers = 100, 4
	var accepted, refused atomic.Int64
	for range rounds {
		made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		credential := string(FormatBearer(made.ID, secret))
		var revoked atomic.Bool
		var wg sync.WaitGroup
		errs := make(chan error, readers)
		for range readers {
			wg.Go(func() {
				for range 10_000_000 { // ends by seeing the revocation
					wasRevoked := revoked.Load()
					_, err := s.Bearer(context.Background(), credential)
					switch {
					case err == nil && wasRevoked:
						errs <- errors.New("a call that began after the revocation succeeded")
						return
					case err == nil:
						accepted.Add(1)
					case wasRevoked:
						refused.Add(1)
						return
					case ReasonOf(err) != InvalidCredential:
						errs <- fmt.Errorf("unexpected: %w", err)
						return
					}
				}
			})
		}
		if err := s.RevokeKey(t.Context(), System(), made.ID); err != nil {
			t.Fatal(err)
		}
		revoked.Store(true)
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Fatal(err)
		}
	}
	if refused.Load() < rounds*readers {
		t.Errorf("only %d readers saw the revocation", refused.Load())
	}
	t.Logf("accepted %d, refused %d", accepted.Load(), refused.Load())
}

func TestUnreadableStorageIsNotAWrongCredential(t *testing.T) {
	backend := memory.New()
	s := newService(t, over(backend))
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	if err := backend.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Bearer(t.Context(), string(FormatBearer(made.ID, secret)))
	wantKind(t, err, copse.Unavailable)
	wantReason(t, err, Unavailable)
	if _, err := s.Bearer(t.Context(), string(FormatBearer(rootID, rootSecret))); err != nil {
		t.Errorf("the root key needs no storage: %v", err)
	}
}
