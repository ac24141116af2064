package token

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// keyShelf keeps keys as the server's secrets do.
type keyShelf struct {
	mu   sync.Mutex
	keys []ContextKey
	err  error
}

func (k *keyShelf) store() ContextKeyStore {
	return ContextKeyStore{
		Load: func(context.Context) ([]ContextKey, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			return slices.Clone(k.keys), k.err
		},
		Add: func(_ context.Context, in ContextKey) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			for _, have := range k.keys {
				if have.ID == in.ID {
					return copse.Errorf(copse.Conflict, "there is one")
				}
			}
			k.keys = append(k.keys, in)
			return k.err
		},
		Remove: func(_ context.Context, id string) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.keys = slices.DeleteFunc(k.keys, func(c ContextKey) bool { return c.ID == id })
			return k.err
		},
	}
}

const contextIssuer = "https://copse.example"

func contextSigner(t *testing.T, shelf *keyShelf) *ContextSigner {
	t.Helper()
	s, err := NewContextSigner(t.Context(), contextIssuer, 24*time.Hour, shelf.store(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func aContext() *Context {
	return &Context{
		Bound: Bound{
			Token: "a.b.c", Method: "GET", Path: "/invoices/17",
			Verified: &Verified{Tenant: "acme", Principal: types.NewEntityUID("User", "älice\"")},
		},
		Audience: "invoices", DecisionID: "decision-1",
	}
}

func verifierWith(t *testing.T, keys []byte) *ContextVerifier {
	t.Helper()
	v, err := NewContextVerifier(ContextConfig{Issuer: contextIssuer, Audience: "invoices", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func TestSignedContextVerifies(t *testing.T) {
	s := contextSigner(t, &keyShelf{})
	v := verifierWith(t, s.KeySet())
	in := aContext()
	text, err := s.Sign(in)
	if err != nil {
		t.Fatal(err)
	}
	if did, err := v.Verify(t.Context(), text, &in.Bound); err != nil || did != "decision-1" {
		t.Errorf("%q, %v", did, err)
	}
	for name, change := range map[string]func(*Bound){
		"token":  func(b *Bound) { b.Token = "a.b.d" },
		"method": func(b *Bound) { b.Method = "POST" },
		"path":   func(b *Bound) { b.Path = "/invoices/18" },
		"tenant": func(b *Bound) {
			b.Verified = &Verified{Tenant: "globex", Principal: b.Verified.Principal}
		},
		"principal": func(b *Bound) {
			b.Verified = &Verified{Tenant: "acme", Principal: types.NewEntityUID("User", "bob")}
		},
	} {
		other := aContext().Bound
		change(&other)
		if _, err := v.Verify(t.Context(), text, &other); copse.KindOf(err) != copse.Denied || err == nil {
			t.Errorf("another %s: %v", name, err)
		}
	}
	in.Audience = "reports"
	text, err = s.Sign(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), text, &in.Bound); err == nil {
		t.Error("a context for another service verifies")
	}
}

func kidOf(t *testing.T, text string) string {
	t.Helper()
	u, err := parseAs(text, func(*unverified, object) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return u.kid
}

// A key is published before it signs, and after: whoever read the key set at any time in the last five
// minutes can verify what is signed now.
func TestContextKeysRotateWithOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &keyShelf{}
		s := contextSigner(t, shelf)
		kids := map[string]bool{}
		readBefore := s.KeySet()
		for range 4 * 24 * 12 { // four days, in steps of five minutes
			time.Sleep(freshFor)
			synctest.Wait()
			in := aContext()
			text, err := s.Sign(in)
			if err != nil {
				t.Fatal(err)
			}
			kids[kidOf(t, text)] = true
			v, err := NewContextVerifier(ContextConfig{Issuer: contextIssuer, Audience: "invoices", Keys: readBefore})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), text, &in.Bound); err != nil {
				t.Fatalf("at %v a key set of five minutes ago does not verify: %v", time.Now(), err)
			}
			_ = v.Close()
			readBefore = s.KeySet()
			if n := strings.Count(string(readBefore), `"kid"`); n > 2 {
				t.Fatalf("%d keys are published", n)
			}
		}
		if len(kids) != 4 && len(kids) != 5 {
			t.Errorf("%d keys signed in four days of rotation by the day", len(kids))
		}
		if len(shelf.keys) > 2 {
			t.Errorf("%d keys are kept", len(shelf.keys))
		}
	})
}

// Two nodes on one storage sign with keys that the other publishes.
func TestContextKeysAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &keyShelf{}
		a := contextSigner(t, shelf)
		b := contextSigner(t, shelf)
		for range 3 * 24 * 6 {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			in := aContext()
			text, err := a.Sign(in)
			if err != nil {
				t.Fatal(err)
			}
			v, err := NewContextVerifier(ContextConfig{Issuer: contextIssuer, Audience: "invoices", Keys: b.KeySet()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), text, &in.Bound); err != nil {
				t.Fatalf("one node's context does not verify with the other's keys: %v", err)
			}
			_ = v.Close()
		}
	})
}

// While storage is away the keys there are go on signing; at the start there must be one.
func TestContextKeysWithoutStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf := &keyShelf{}
		s := contextSigner(t, shelf)
		shelf.mu.Lock()
		shelf.err = errors.New("storage is away")
		shelf.mu.Unlock()
		time.Sleep(48 * time.Hour)
		if _, err := s.Sign(aContext()); err != nil {
			t.Error(err)
		}
		if _, err := NewContextSigner(t.Context(), contextIssuer, 24*time.Hour, shelf.store(), slog.New(slog.DiscardHandler)); err == nil {
			t.Error("a signer without keys was made")
		}
	})
	if _, err := NewContextSigner(t.Context(), contextIssuer, time.Minute, (&keyShelf{}).store(), slog.New(slog.DiscardHandler)); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a rotation faster than publication: %v", err)
	}
}
