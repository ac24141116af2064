package access

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// dying carries out n changes and fails from then on, as a process that was killed would.
type dying struct {
	storage.Backend
	left int
}

var errDied = errors.New("killed")

func (d *dying) spend() error {
	if d.left--; d.left < 0 {
		return errDied
	}
	return nil
}

func (d *dying) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if err := d.spend(); err != nil {
		return 0, err
	}
	return d.Backend.Commit(ctx, c)
}

func (d *dying) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	if err := d.spend(); err != nil {
		return err
	}
	return d.Backend.Forget(ctx, p, k, upTo)
}

// The rotation of a master key is ended after each of its steps in turn, and taken up again.
func TestMasterKeyRotationIsResumed(t *testing.T) {
	const keys, secrets = resealBatch + 5, 3
	from, to := testMaster(7), testMaster(8)
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	credentials := map[string]Secret{}
	s := newService(t, over(backend))
	for range keys {
		k, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		credentials[k.ID] = secret
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := s.PutSecret(t.Context(), ServerSecret{Purpose: "test", Name: name, Value: Secret("value of " + name), CreatedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// With a key that is not the one in use nothing begins.
	_, err := Reseal(t.Context(), backend, testMaster(1), to)
	wantKind(t, err, copse.Invalid)
	_, err = Reseal(t.Context(), backend, from, from)
	wantKind(t, err, copse.Invalid)
	if again, err := New(Config{Backend: backend, MasterKey: from}); err != nil {
		t.Fatalf("after a rotation that did not begin: %v", err)
	} else if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	deaths, resealed := 0, 0
	for {
		// Each run goes a few steps further than the one before: what is done is passed over, but for
		// looking whether the history is clean.
		d := &dying{Backend: backend, left: deaths * 4}
		n, err := Reseal(t.Context(), d, from, to)
		resealed += n
		if err == nil {
			break
		}
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		deaths++
		if _, getErr := backend.Get(t.Context(), storage.Directory(), rotationKey); getErr != nil {
			continue // it did not begin
		}
		for _, master := range []MasterKey{from, to} {
			_, err := New(Config{Backend: backend, MasterKey: master})
			wantKind(t, err, copse.InvalidState)
		}
		_, err = Reseal(t.Context(), backend, from, testMaster(9))
		if kind := copse.KindOf(err); kind != copse.InvalidState && kind != copse.Invalid {
			t.Fatalf("a third key in the middle: %v", err)
		}
	}
	if resealed != keys+secrets || deaths < 20 {
		t.Errorf("%d rows sealed anew, want %d; %d deaths", resealed, keys+secrets, deaths)
	}
	if _, err := New(Config{Backend: backend, MasterKey: from}); err == nil {
		t.Error("the former master key is still good")
	}
	s = newService(t, over(backend), func(c *Config) { c.MasterKey = to })
	for id, secret := range credentials {
		if !opens(t, s, id, secret) {
			t.Fatalf("%s does not open any more", id)
		}
	}
	kept, err := s.Secrets(t.Context(), "test")
	if err != nil || len(kept) != secrets || string(kept[1].Value) != "value of b" {
		t.Errorf("%d secrets, %v", len(kept), err)
	}
	wantFormerOpensNothing(t, backend, from)
}

func wantFormerOpensNothing(t *testing.T, backend storage.Backend, master MasterKey) {
	t.Helper()
	former, err := newSealers(master)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := backend.History(t.Context(), storage.Directory(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, row := range rows {
		if row.Key.Kind != keyKind && row.Key.Kind != secretKind || row.Body == nil {
			continue
		}
		looked++
		if _, err := former.open(storage.Item{Key: row.Key, Body: row.Body}); err == nil {
			t.Fatalf("the former key opens %s of revision %d", row.Key.ID, row.Revision)
		}
		if _, err := former.openSecret(storage.Item{Key: row.Key, Body: row.Body}); err == nil {
			t.Fatalf("the former key opens %s of revision %d", row.Key.ID, row.Revision)
		}
		if bytes.Contains(row.Body, []byte(former.generation)) {
			t.Fatalf("%s of revision %d names the former key", row.Key.ID, row.Revision)
		}
	}
	if looked < resealBatch {
		t.Errorf("only %d rows of history were looked at", looked)
	}
	if err := storage.VerifyHistory(t.Context(), backend, storage.Directory()); err != nil {
		t.Error(err)
	}
}
