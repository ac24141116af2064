package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// stand makes the row that keys of a scope need, unless it is there.
func stand(t *testing.T, s *Service, scope Scope) {
	t.Helper()
	row, ok := scope.row()
	if !ok {
		return
	}
	if _, err := s.backend.Get(t.Context(), storage.Directory(), row); !errors.Is(err, storage.ErrNotFound) {
		return
	}
	if err := s.commit(t.Context(), System(), "Test", nil, storage.Write{Key: row, Body: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
}

// removeAll removes keys and row of scopes, as offboarding does.
func removeAll(t *testing.T, s *Service, require []storage.Requirement, writes []storage.Write, scopes ...Scope) error {
	t.Helper()
	for _, scope := range scopes {
		row, _ := scope.row()
		writes = append(writes, storage.Write{Key: row, Expect: storage.Any()})
	}
	return s.commit(t.Context(), System(), "Test", require, writes...)
}

func TestAKeyNeedsWhatItIsOf(t *testing.T) {
	acme, ps := Scope{Tenant: "acme"}, Scope{PolicyStore: "ps1"}
	for name, scope := range map[string]Scope{"tenant": acme, "policy store": ps} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			createKey(t, s, Key{Scope: Scope{Tenant: "other"}, Verbs: Read})
			_, secret, err := s.CreateKey(t.Context(), System(), Key{Scope: scope, Verbs: Read})
			wantKind(t, err, copse.NotFound)
			if keys, _, err := s.ListKeys(t.Context(), System(), "", 10); err != nil || len(keys) != 1 || secret != "" {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			createKey(t, s, Key{Scope: scope, Verbs: Read})
			require, writes, err := RemoveKeysOf(t.Context(), s.backend, scope)
			if err == nil {
				err = removeAll(t, s, require, writes, scope)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = s.CreateKey(t.Context(), System(), Key{Scope: scope, Verbs: Read})
			wantKind(t, err, copse.NotFound)
		})
	}
}

func TestRemoveKeysOf(t *testing.T) {
	s := newService(t)
	acme, acme2, ps := Scope{Tenant: "acme"}, Scope{Tenant: "acme2"}, Scope{PolicyStore: "acme"}
	one, secretOne := createKey(t, s, Key{Scope: acme, Verbs: Read})
	createKey(t, s, Key{Scope: acme, Verbs: Decide})
	createKey(t, s, Key{Scope: ps, Verbs: Read})
	kept, secretKept := createKey(t, s, Key{Scope: acme2, Verbs: Read})
	all, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	require, writes, err := RemoveKeysOf(t.Context(), s.backend, acme, ps, Scope{All: true})
	if err != nil || len(writes) != 8 {
		t.Fatalf("%d writes, %v", len(writes), err)
	}
	if err := removeAll(t, s, require, writes, acme, ps); err != nil {
		t.Fatal(err)
	}
	_, err = s.Bearer(t.Context(), string(FormatBearer(one.ID, secretOne)))
	wantReason(t, err, InvalidCredential)
	if _, err := s.Bearer(t.Context(), string(FormatBearer(kept.ID, secretKept))); err != nil {
		t.Error(err)
	}
	keys, _, err := s.ListKeys(t.Context(), System(), "", 10)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v left, %v; want %s and %s", keys, err, kept.ID, all.ID)
	}
	snapshot, err := s.backend.Load(t.Context(), storage.Directory())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range snapshot.Items {
		if strings.HasSuffix(item.ID, "/acme") {
			t.Errorf("left: %s %q %s", item.Kind, item.ID, item.Body)
		}
	}
}

// What is removed was read before; a key that came or went since makes the commit fail, in all ways
// that it can.
func TestRemoveKeysOfConflictsWithNewKeys(t *testing.T) {
	acme := Scope{Tenant: "acme"}
	for name, c := range map[string]struct {
		before, after func(t *testing.T, s *Service)
	}{
		"the first key": {func(*testing.T, *Service) {}, func(t *testing.T, s *Service) { createKey(t, s, Key{Scope: acme, Verbs: Read}) }},
		"one more":      {func(t *testing.T, s *Service) { createKey(t, s, Key{Scope: acme, Verbs: Read}) }, func(t *testing.T, s *Service) { createKey(t, s, Key{Scope: acme, Verbs: Read}) }},
		"made and revoked": {func(*testing.T, *Service) {}, func(t *testing.T, s *Service) {
			k, _ := createKey(t, s, Key{Scope: acme, Verbs: Read})
			if err := s.RevokeKey(t.Context(), System(), k.ID); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			stand(t, s, acme)
			c.before(t, s)
			require, writes, err := RemoveKeysOf(t.Context(), s.backend, acme)
			if err != nil {
				t.Fatal(err)
			}
			c.after(t, s)
			if err := removeAll(t, s, require, writes, acme); !errors.Is(err, storage.ErrConflict) {
				t.Fatalf("got %v, want a conflict", err)
			}
			require, writes, err = RemoveKeysOf(t.Context(), s.backend, acme)
			if err != nil {
				t.Fatal(err)
			}
			if err := removeAll(t, s, require, writes, acme); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestKeysPerScopeAreLimited(t *testing.T) {
	s := newService(t)
	var last Key
	for range copse.MaxKeysPerScope {
		last, _ = createKey(t, s, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	}
	_, _, err := s.CreateKey(t.Context(), System(), Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	wantKind(t, err, copse.QuotaExceeded)
	if !strings.Contains(err.Error(), `100 access keys of tenant "acme"`) {
		t.Error(err)
	}
	createKey(t, s, Key{Scope: Scope{Tenant: "acme2"}, Verbs: Read})
	for range copse.MaxKeysPerScope + 1 {
		createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	}
	if err := s.RevokeKey(t.Context(), System(), last.ID); err != nil {
		t.Fatal(err)
	}
	createKey(t, s, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
}

// Keys of one tenant are made and revoked at the same time, by two processes.
func TestKeysOfOneScopeAtOnce(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	services := []*Service{newService(t, over(backend)), newService(t, over(backend))}
	acme := Scope{Tenant: "acme"}
	stand(t, services[0], acme)
	var kept atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for n := range 4 {
		s := services[n%2]
		wg.Go(func() {
			for i := range 10 {
				k, _, err := s.CreateKey(t.Context(), System(), Key{Scope: acme, Verbs: Read})
				if err == nil && i%2 == 0 {
					err = s.RevokeKey(t.Context(), System(), k.ID)
				} else if err == nil {
					kept.Add(1)
				}
				if err != nil && copse.KindOf(err) != copse.Conflict {
					errs <- fmt.Errorf("%v: %w", copse.KindOf(err), err)
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	keys, _, err := services[0].ListKeys(t.Context(), System(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	row, _ := acme.row()
	of, err := readKeysOf(t.Context(), backend, row)
	if err != nil || len(of.ids) != len(keys) || kept.Load() < 10 {
		t.Errorf("%d listed of %d keys, %d kept, %v", len(of.ids), len(keys), kept.Load(), err)
	}
}

// interrupted does something just before the first key is committed.
type interrupted struct {
	storage.Backend
	once sync.Once
	do   func()
}

func (i *interrupted) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if c.Operation == "CreateKey" {
		i.once.Do(i.do)
	}
	return i.Backend.Commit(ctx, c)
}

func TestAKeyIsNotMadeForWhatGoesMeanwhile(t *testing.T) {
	b := &interrupted{Backend: memory.New()}
	defer func() { _ = b.Close() }()
	s, acme := newService(t, over(b)), Scope{Tenant: "acme"}
	stand(t, s, acme)
	gone := false
	b.do = func() {
		require, writes, err := RemoveKeysOf(t.Context(), b, acme)
		if err == nil {
			err = removeAll(t, s, require, writes, acme)
		}
		gone = err == nil
	}
	_, _, err := s.CreateKey(t.Context(), System(), Key{Scope: acme, Verbs: Read})
	wantKind(t, err, copse.NotFound)
	if keys, _, err := s.ListKeys(t.Context(), System(), "", 10); err != nil || len(keys) != 0 || !gone {
		t.Errorf("%d keys, gone %v, %v", len(keys), gone, err)
	}
}

// A key is revoked also when the list that it stands in is damaged: nothing is more urgent.
func TestRevocationDoesNotNeedTheList(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	s := newService(t, over(backend))
	ctx := t.Context()
	tenant := storage.Key{Kind: TenantKind, ID: "acme"}
	if err := s.commit(ctx, System(), "Test", nil, storage.Write{Key: tenant, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	made, secret := createKey(t, s, Key{Scope: Scope{Tenant: "acme"}, Verbs: Read})
	list := storage.Key{Kind: ofKind, ID: string(TenantKind) + "/acme"}
	if err := s.commit(ctx, System(), "Test", nil, storage.Write{Key: list, Body: []byte("damaged"), Expect: storage.Any()}); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeKey(ctx, System(), made.ID); err != nil {
		t.Fatal(err)
	}
	_, err := s.Bearer(ctx, string(FormatBearer(made.ID, secret)))
	wantReason(t, err, InvalidCredential)
}
