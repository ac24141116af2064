package access

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func opens(t *testing.T, s *Service, id string, secret Secret) bool {
	t.Helper()
	_, err := s.Bearer(t.Context(), string(FormatBearer(id, secret)))
	if err != nil && ReasonOf(err) != ExpiredToken && ReasonOf(err) != InvalidCredential {
		t.Fatal(err)
	}
	return err == nil
}

func TestExpiryIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		k, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		at := time.Now().Add(time.Hour)
		changed, err := s.SetExpiry(t.Context(), System(), k.ID, at)
		if err != nil || !changed.ExpiresAt.Equal(at.Truncate(time.Microsecond)) {
			t.Fatal(changed, err)
		}
		time.Sleep(time.Hour - time.Microsecond)
		if !opens(t, s, k.ID, secret) {
			t.Error("refused before its time")
		}
		// The clock may also be set back: the key is then what it was at that time, and no older.
		r, err := s.lookup(t.Context(), k.ID)
		if err != nil || r.expired(at.Add(-48*time.Hour)) || !r.expired(at) || !r.expired(at.Add(100*365*24*time.Hour)) {
			t.Error("expiry does not go by the time alone", err)
		}
		time.Sleep(time.Microsecond)
		if opens(t, s, k.ID, secret) {
			t.Error("accepted in the very moment it expires")
		}
		_, err = s.SetExpiry(t.Context(), System(), k.ID, time.Time{})
		wantKind(t, err, copse.InvalidState)
		_, err = s.SetExpiry(t.Context(), System(), k.ID, time.Now())
		wantKind(t, err, copse.Invalid)
		_, err = s.SetExpiry(t.Context(), System(), newKeyID(), time.Time{})
		wantKind(t, err, copse.NotFound)
		_, err = s.SetExpiry(t.Context(), Caller{Scope: Scope{All: true}, Verbs: Read | Write | Decide}, k.ID, time.Time{})
		wantKind(t, err, copse.Denied)
		_, err = s.SetExpiry(t.Context(), System(), rootID, time.Time{})
		wantKind(t, err, copse.InvalidState)
	})
}

func TestRotationOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		k, secret := createKey(t, s, Key{Description: "ci", Scope: Scope{Tenant: "acme"}, Verbs: Read | Decide, ExpiresAt: time.Now().Add(100 * time.Hour)})
		time.Sleep(10 * time.Hour)
		made, fresh, old, err := s.RotateKey(t.Context(), System(), k.ID, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if made.Scope != k.Scope || made.Verbs != k.Verbs || made.Description != k.Description || made.ID == k.ID || fresh == secret {
			t.Errorf("%+v of %+v", made, k)
		}
		if life := made.ExpiresAt.Sub(made.CreatedAt); life != k.ExpiresAt.Sub(k.CreatedAt) {
			t.Errorf("the new key lives for %s", life)
		}
		if left := old.ExpiresAt.Sub(made.CreatedAt); left != 24*time.Hour {
			t.Errorf("the old key has %s left", left)
		}
		time.Sleep(24*time.Hour - time.Microsecond)
		if !opens(t, s, k.ID, secret) || !opens(t, s, made.ID, fresh) {
			t.Error("during the overlap both must do")
		}
		time.Sleep(time.Microsecond)
		if opens(t, s, k.ID, secret) || !opens(t, s, made.ID, fresh) {
			t.Error("after the overlap only the new one may do")
		}
		_, _, _, err = s.RotateKey(t.Context(), System(), k.ID, time.Hour)
		wantKind(t, err, copse.InvalidState)
		// The overlap is no extension, and may be none at all.
		_, _, old, err = s.RotateKey(t.Context(), System(), made.ID, MaxOverlap)
		if err != nil || !old.ExpiresAt.Equal(made.ExpiresAt) {
			t.Error(old.ExpiresAt, made.ExpiresAt, err)
		}
		if _, _, _, err = s.RotateKey(t.Context(), System(), made.ID, 0); err != nil || opens(t, s, made.ID, fresh) {
			t.Error("replaced without overlap, it opens still", err)
		}
		for _, overlap := range []time.Duration{-1, MaxOverlap + 1} {
			_, _, _, err = s.RotateKey(t.Context(), System(), made.ID, overlap)
			wantKind(t, err, copse.Invalid)
		}
		_, _, _, err = s.RotateKey(t.Context(), System(), rootID, time.Hour)
		wantKind(t, err, copse.InvalidState)
	})
}

// A key that is rotated by many at once, and revoked, is not half rotated: each answer with a secret is
// of a key that opens, and no key is left out of what goes with the tenant.
func TestRotationsAtOnce(t *testing.T) {
	s := newService(t)
	k, secret := createKey(t, s, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	var mu sync.Mutex
	made := map[string]Secret{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, fresh, _, err := s.RotateKey(t.Context(), System(), k.ID, time.Hour)
			if err == nil {
				mu.Lock()
				made[m.ID] = fresh
				mu.Unlock()
			} else if kind := copse.KindOf(err); kind != copse.NotFound && kind != copse.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := s.RevokeKey(t.Context(), System(), k.ID); err != nil && copse.KindOf(err) != copse.Conflict {
			t.Error(err)
		}
	})
	wg.Wait()
	if err := s.RevokeKey(t.Context(), System(), k.ID); err != nil && copse.KindOf(err) != copse.NotFound {
		t.Fatal(err)
	}
	if opens(t, s, k.ID, secret) {
		t.Error("the revoked key opens: a rotation brought it back")
	}
	of, err := readKeysOf(t.Context(), s.backend, storage.Key{Kind: TenantKind, ID: "acme"})
	if err != nil || len(of.ids) != len(made) {
		t.Errorf("%d keys of the tenant, %d were made: %v", len(of.ids), len(made), err)
	}
	for id, fresh := range made {
		if !opens(t, s, id, fresh) {
			t.Errorf("%s was answered and does not open", id)
		}
	}
}

func TestLastUse(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, over(backend))
		k, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		never, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		lastUsed := func(s *Service, id string) time.Time {
			t.Helper()
			keys, _, err := s.ListKeys(t.Context(), System(), "", 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				if k.ID == id {
					return k.LastUsedAt
				}
			}
			t.Fatalf("%s is not listed", id)
			return time.Time{}
		}
		// A wrong secret is no use.
		if opens(t, s, k.ID, "wrong") || !lastUsed(s, k.ID).IsZero() {
			t.Error("a wrong secret counts as use")
		}
		revision := func() uint64 {
			head, err := backend.Head(t.Context(), storage.Directory())
			if err != nil {
				t.Fatal(err)
			}
			return head.Revision
		}
		before := revision()
		const hours = 3
		for range hours * 60 * 6 {
			if !opens(t, s, k.ID, secret) {
				t.Fatal("refused")
			}
			if at := lastUsed(s, k.ID); at.Unix() != time.Now().Unix() {
				t.Fatalf("used at %s, listed as %s", time.Now(), at)
			}
			time.Sleep(10 * time.Second)
		}
		if writes := revision() - before; writes < hours*3 || writes > hours*4+1 {
			t.Errorf("%d commits in %d hours of use", writes, hours)
		}
		used := lastUsed(s, k.ID)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again := newService(t, over(backend))
		if at := lastUsed(again, k.ID); !at.Equal(used) {
			t.Errorf("after a restart %s, before %s", at, used)
		}
		if at := lastUsed(again, never.ID); !at.IsZero() {
			t.Errorf("a key that was never used, at %s", at)
		}
		// An idle key is dropped from memory, and seen again.
		opens(t, again, k.ID, secret)
		time.Sleep(2 * useIdle)
		again.uses.mu.Lock()
		kept := len(again.uses.byID)
		again.uses.mu.Unlock()
		if opens(t, again, k.ID, secret); kept != 0 || lastUsed(again, k.ID).Unix() != time.Now().Unix() {
			t.Errorf("%d idle keys in memory; used now, listed as %s", kept, lastUsed(again, k.ID))
		}
		// Nothing of a use is left, or comes back, when the key goes.
		if err := again.RevokeKey(t.Context(), System(), k.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * useTick)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		items, err := backend.Scan(t.Context(), storage.Directory(), useKind, "", 10)
		if err != nil || len(items) != 0 {
			t.Errorf("%v, %v", items, err)
		}
	})
}

// TestUseJustMade: a look at the uses between a key's load and its first touch must leave the use
// alone, or the key's record touches one that no list reads.
func TestUseJustMade(t *testing.T) {
	us := uses{byID: map[string]*use{}}
	now := time.Unix(1_800_000_000, 0)
	u := us.of("k", now)
	us.due(now, false, func(id string) { t.Errorf("%s is forgotten", id) })
	u.touch(now)
	if at := us.last("k"); !at.Equal(now) {
		t.Errorf("used at %s, listed as %s", now, at)
	}
	forgotten := 0
	us.of("never shown rightly", now)
	us.due(now.Add(2*useIdle), false, func(string) { forgotten++ })
	if forgotten != 1 {
		t.Errorf("%d idle uses are forgotten", forgotten)
	}
}
