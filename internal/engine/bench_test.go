package engine

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// sharing is a document-sharing service: people in groups, documents in folders, and links of three
// templates that share a folder or document with a group or person.
type sharing struct {
	snapshot *Snapshot
	set      *cedar.PolicySet
	entities types.EntityMap
	requests []copse.Request
}

var sharingTemplates = []string{
	`permit(principal in ?principal, action == Action::"view", resource in ?resource);`,
	`permit(principal in ?principal, action in [Action::"view", Action::"edit"], resource in ?resource) when { !resource.archived && principal.level >= resource.level };`,
	`permit(principal == ?principal, action in [Action::"view", Action::"edit", Action::"share"], resource in ?resource) when { context.mfa || resource.labels.contains("public") };`,
}

func newSharing(t testing.TB, links int) *sharing {
	t.Helper()
	const groups, folders, people, documents = 40, 60, 100, 200
	r := rand.New(rand.NewPCG(20261128, 0))
	w := &sharing{set: cedar.NewPolicySet(), entities: types.EntityMap{}}
	templates := make([]*Template, len(sharingTemplates))
	for i, text := range sharingTemplates {
		templates[i] = mustTemplate(t, text)
	}
	named := func(typ string, n int) types.EntityUID { return uid(typ, fmt.Sprint(typ, r.IntN(n))) }
	var sources []Source
	for i := range links {
		link := written{text: sharingTemplates[i%3]}
		principal, resource := named("Group", groups), named("Folder", folders)
		if i%3 == 2 {
			principal = named("User", people)
		}
		link.principal, link.resource = &principal, &resource
		id := fmt.Sprintf("link%05d", i)
		sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: mustLink(t, templates[i%3], principal, resource)})
		p := new(cedar.Policy)
		if err := p.UnmarshalCedar([]byte(link.materialised())); err != nil {
			t.Fatal(err)
		}
		w.set.Add(cedar.PolicyID(id), p)
	}
	var err error
	if w.snapshot, err = Compile(nil, copse.Settings{}, sources); err != nil {
		t.Fatal(err)
	}
	// 50 entities: one person, groups and folders in each other, some documents.
	add := func(u types.EntityUID, attributes types.RecordMap, parents ...types.EntityUID) {
		w.entities[u] = types.Entity{UID: u, Attributes: types.NewRecord(attributes), Parents: types.NewEntityUIDSet(parents...)}
	}
	for i := range 10 {
		var up []types.EntityUID
		if i > 0 {
			up = append(up, uid("Group", fmt.Sprint("Group", i/2)))
		}
		add(uid("Group", fmt.Sprint("Group", i)), nil, up...)
	}
	for i := range 19 {
		var up []types.EntityUID
		if i > 0 {
			up = append(up, uid("Folder", fmt.Sprint("Folder", i/2)))
		}
		add(uid("Folder", fmt.Sprint("Folder", i)), nil, up...)
	}
	add(uid("User", "User1"), types.RecordMap{"level": types.Long(3), "name": types.String("Ada")}, uid("Group", "Group9"), uid("Group", "Group6"))
	for i := range 20 {
		add(uid("Doc", fmt.Sprint("Doc", i)), types.RecordMap{
			"archived": types.Boolean(i%5 == 0), "level": types.Long(int64(i % 5)), "owner": named("User", people),
			"labels": types.NewSet(types.String("draft"), types.String([]string{"public", "internal"}[i%2])),
		}, named("Folder", 19))
	}
	if len(w.entities) != 50 {
		t.Fatalf("%d entities", len(w.entities))
	}
	entities := []byte(avpListJSON(entitiesOf(w.entities)))
	for i := range 20 {
		who := uid("User", "User1")
		if i%4 == 3 {
			who = uid("User", "stranger")
		}
		w.requests = append(w.requests, copse.Request{
			Principal: who, Action: uid("Action", []string{"view", "edit", "share"}[i%3]), Resource: uid("Doc", fmt.Sprint("Doc", i)),
			Entities: copse.Data{Format: copse.FormatAVPList, Bytes: entities}, Context: avpMap(`{"mfa":{"boolean":true}}`),
		})
	}
	return w
}

func entitiesOf(m types.EntityMap) (list []types.Entity) {
	for _, e := range m {
		list = append(list, e)
	}
	return list
}

func (w *sharing) judgesRequest(r *copse.Request) types.Request {
	return types.Request{Principal: r.Principal, Action: r.Action, Resource: r.Resource, Context: types.NewRecord(types.RecordMap{"mfa": types.True})}
}

// agree fails unless both sides answer all requests alike, some of them with ALLOW.
func (w *sharing) agree(t testing.TB) {
	t.Helper()
	allows, determining := 0, 0
	for i := range w.requests {
		r := &w.requests[i]
		got, err := w.snapshot.Decide(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := judgeSet(w.set, w.entities, w.judgesRequest(r)); verdictOf(got).String() != want.String() {
			t.Fatalf("got %v, the judge says %v", verdictOf(got), want)
		}
		if got.Decision == copse.Allow {
			allows++
			determining += len(got.Determining)
		}
	}
	if allows < 5 || allows == len(w.requests) {
		t.Fatalf("%d of %d are ALLOW", allows, len(w.requests))
	}
}

func TestSharingAgrees(t *testing.T) { newSharing(t, 500).agree(t) }

// BenchmarkSharing decides with 500 links to 3 templates and 50 entities. cedar-go has the links
// materialised and scans them; on both sides the request is decoded beforehand.
func BenchmarkSharing(b *testing.B) {
	w := newSharing(b, 500)
	w.agree(b)
	calls := make([]*call, len(w.requests))
	for i := range calls {
		calls[i] = newCall(w.snapshot, &w.requests[i])
		if err := calls[i].decode(); err != nil {
			b.Fatal(err)
		}
	}
	ours := func() {
		for _, c := range calls {
			c.steps = 0
			c.permits, c.forbids, c.failed = c.permits[:0], c.forbids[:0], c.failed[:0]
			c.decide(w.snapshot.index.find(c))
			_ = c.response()
		}
	}
	requests := make([]types.Request, len(w.requests))
	for i := range requests {
		requests[i] = w.judgesRequest(&w.requests[i])
	}
	theirs := func() {
		for _, r := range requests {
			cedar.Authorize(w.set, w.entities, r)
		}
	}
	withDecoding := func() {
		for i := range w.requests {
			_, _ = w.snapshot.Decide(&w.requests[i])
		}
	}
	for b.Loop() {
		ours()
	}
	b.ReportMetric(0, "ns/op") // of all requests together
	n := float64(len(requests))
	cost := perCall(ours)
	b.ReportMetric(cost/n, "copse-ns/op")
	b.ReportMetric(perCall(theirs)/n, "scan-ns/op")
	b.ReportMetric(perCall(withDecoding)/n, "copse-with-decoding-ns/op")
	b.ReportMetric(perCall(theirs)/cost, "times-faster")
}

// perCall is the processor time of a call in nanoseconds.
func perCall(f func()) float64 {
	f()
	start, calls := processorTime(), 0
	for processorTime()-start < 300*time.Millisecond {
		f()
		calls++
	}
	return float64(processorTime()-start) / float64(calls)
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
