package policystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

const (
	schemaText  = `entity User; entity Doc { owner: User }; action view, edit appliesTo { principal: User, resource: Doc };`
	otherSchema = `entity User { level: Long }; entity Doc; action view, edit appliesTo { principal: User, resource: Doc };`

	permitAll  = `permit (principal, action, resource);`
	forbidAll  = `forbid (principal, action, resource);`
	permitView = `permit (principal, action == Action::"view", resource);`
	ownersView = `permit (principal, action == Action::"view", resource) when { resource.owner == principal };`
	levelView  = `permit (principal, action == Action::"view", resource) when { principal.level > 3 };`
)

var root = access.System()

func schema(text string) policystore.SchemaText { return policystore.SchemaText{Cedar: text} }

// backends runs a test on every backend.
func backends(t *testing.T, f func(t *testing.T, b storage.Backend)) {
	t.Run("memory", func(t *testing.T) { f(t, memory.New()) })
	t.Run("sqlite", func(t *testing.T) { f(t, openSQLite(t, t.TempDir())) })
}

func openSQLite(t *testing.T, dir string) storage.Backend {
	t.Helper()
	b, err := sqlite.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func newService(t *testing.T, b storage.Backend) *policystore.Service {
	t.Helper()
	return newServiceFrom(t, policystore.Config{Backend: b})
}

func newServiceFrom(t *testing.T, cfg policystore.Config) *policystore.Service {
	t.Helper()
	s, err := policystore.New(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(describe(err))
	}
}

func describe(err error) string {
	var b strings.Builder
	for ; err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(&b, "%v (%v); ", err, copse.KindOf(err))
	}
	return b.String()
}

// wantKind fails unless err is of a kind and its text mentions all the parts.
func wantKind(t *testing.T, err error, kind copse.Kind, parts ...string) *copse.Error {
	t.Helper()
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("got %s, want %v", describe(err), kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("error %q does not mention %q", err, part)
		}
	}
	return e
}

// wantField fails unless err has a finding at a path, with a position if line is not 0.
func wantField(t *testing.T, err error, path string, line int) {
	t.Helper()
	e, ok := errors.AsType[*copse.Error](err)
	if !ok {
		t.Fatalf("got %v, want a finding at %s", err, path)
	}
	for _, f := range e.Fields {
		if f.Path == path && (line == 0 || f.Line == line) && f.Message != "" {
			return
		}
	}
	t.Fatalf("no finding at %s line %d in %+v", path, line, e.Fields)
}

func create(t *testing.T, s *policystore.Service, in policystore.NewPolicyStore) policystore.PolicyStore {
	t.Helper()
	if in.Settings.Validation == "" {
		in.Settings.Validation = copse.ValidationOff
		if in.Schema != nil {
			in.Settings.Validation = copse.ValidationStrict
		}
	}
	p, err := s.Create(context.Background(), root, in)
	must(t, err)
	return p
}

func named(texts ...string) []policystore.PolicyText {
	var out []policystore.PolicyText
	for i := 0; i < len(texts); i += 2 {
		out = append(out, policystore.PolicyText{Name: texts[i], Statement: texts[i+1]})
	}
	return out
}

// view asks whether alice may view doc 1.
func view(id copse.PolicyStoreID) *copse.Request {
	return &copse.Request{
		PolicyStoreID: id,
		Principal:     types.NewEntityUID("User", "alice"),
		Action:        types.NewEntityUID("Action", "view"),
		Resource:      types.NewEntityUID("Doc", "1"),
	}
}

func wantDecision(t *testing.T, s *policystore.Service, id copse.PolicyStoreID, want copse.Decision, determining ...string) copse.Response {
	t.Helper()
	out, err := s.Decider().Decide(context.Background(), view(id))
	must(t, err)
	var names []string
	for _, ref := range out.Determining {
		names = append(names, ref.Name)
	}
	if out.Decision != want || strings.Join(names, ",") != strings.Join(determining, ",") {
		t.Fatalf("got %v by %v, want %v by %v", out.Decision, names, want, determining)
	}
	return out
}

// eventually waits for what happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// errPulled is what a faulty backend answers.
var errPulled = errors.New("the plug was pulled")

// faulty passes calls that change something to a real backend until the n-th, and fails that one and
// all that follow, as a process that died would. With late, the n-th is carried out first and only its
// answer is lost.
type faulty struct {
	storage.Backend
	n     int64
	late  bool
	calls atomic.Int64
}

func (f *faulty) pulled() (now, before bool) {
	n := f.calls.Add(1)
	return n == f.n, n > f.n
}

func (f *faulty) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	now, before := f.pulled()
	if before || now && !f.late {
		return 0, errPulled
	}
	v, err := f.Backend.Commit(ctx, c)
	if now {
		return 0, errPulled
	}
	return v, err
}

func (f *faulty) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	return f.do(func() error { return f.Backend.Fence(ctx, p, i, actor) })
}

func (f *faulty) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	return f.do(func() error { return f.Backend.Forget(ctx, p, k, upTo) })
}

func (f *faulty) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (done bool, err error) {
	err = f.do(func() error {
		done, err = f.Backend.Erase(ctx, p, i, limit)
		return err
	})
	return done && err == nil, err
}

func (f *faulty) do(call func() error) error {
	now, before := f.pulled()
	if before || now && !f.late {
		return errPulled
	}
	err := call()
	if now {
		return errPulled
	}
	return err
}

// Get fails too once the plug is pulled: a dead process reads nothing.
func (f *faulty) Get(ctx context.Context, p storage.Partition, k storage.Key) (storage.Item, error) {
	if f.calls.Load() >= f.n {
		return storage.Item{}, errPulled
	}
	return f.Backend.Get(ctx, p, k)
}

// traces is everything a backend holds in which one of the words occurs: heads, items and history.
func traces(t *testing.T, b storage.Backend, words ...string) []string {
	t.Helper()
	ctx := context.Background()
	heads, err := b.Heads(ctx, "", 1000)
	must(t, err)
	partitions := []storage.Partition{storage.Directory()}
	var found []string
	note := func(where string, texts ...string) {
		for _, text := range texts {
			for _, w := range words {
				if strings.Contains(text, w) {
					found = append(found, where+": "+text)
				}
			}
		}
	}
	for _, h := range heads {
		partitions = append(partitions, h.Partition)
		note("head", h.Partition.String())
	}
	for _, p := range partitions {
		loaded, err := b.Load(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		must(t, err)
		for _, item := range loaded.Items {
			note("item of "+p.String(), item.ID, string(item.Body))
		}
		rows, err := b.History(ctx, p, 0, 100_000)
		must(t, err)
		for _, row := range rows {
			note("history of "+p.String(), row.Key.ID, string(row.Body))
		}
	}
	feed, err := b.Feed(ctx, 0, 100_000)
	must(t, err)
	for _, row := range feed {
		note("feed", row.Partition.String())
	}
	return found
}
