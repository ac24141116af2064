//go:build rust

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// The same request as Cedar writes it: its own crate knows no other form.
const (
	cedarEntities = `[
	{"uid": {"type": "User", "id": "u0"}, "attrs": {"dept": "engineering", "level": 4, "name": "Ada"}, "parents": [{"type": "Group", "id": "g8"}, {"type": "Group", "id": "g28"}]},
	{"uid": {"type": "Document", "id": "d1"}, "attrs": {"dept": "engineering", "labels": ["draft", "q3"], "owner": {"__entity": {"type": "User", "id": "u7"}}}, "parents": [{"type": "Folder", "id": "f8"}]},
	{"uid": {"type": "Folder", "id": "f8"}, "attrs": {}, "parents": [{"type": "Folder", "id": "f0"}]},
	{"uid": {"type": "Group", "id": "g8"}, "attrs": {}, "parents": [{"type": "Group", "id": "everyone"}]},
	{"uid": {"type": "Group", "id": "everyone"}, "attrs": {"size": 12}, "parents": []}]`
	cedarContext = `{"mfa": true, "hour": 14}`
)

type rustAnswer struct {
	Allow       bool     `json:"allow"`
	Determining []string `json:"determining"`
	Errors      int      `json:"errors"`
	Nanoseconds int64    `json:"nanoseconds"`
}

// BenchmarkAgainstRust holds a decision against Cedar's own crate, called in its own process with the same
// bytes of entities and context; `make bench-rust` builds it. Both are measured in processor time.
func BenchmarkAgainstRust(b *testing.B) {
	for _, n := range []int{10, 1_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			texts := workload(n)
			s := compile(b, nil, copse.Settings{}, texts)
			asked := requests()
			for i := range asked {
				asked[i].Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(cedarEntities)}
				text := cedarContext
				if string(asked[i].Context.Bytes) == `{}` {
					text = `{}`
				}
				asked[i].Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(text)}
			}
			theirs := askRust(b, texts, asked)
			for i, req := range asked {
				got, err := s.Decide(&req)
				if err != nil {
					b.Fatal(err)
				}
				mine := rustAnswer{Allow: got.Decision == copse.Allow, Determining: answerOf(got).Determining, Errors: len(got.Errors)}
				want := theirs[i]
				want.Nanoseconds = 0
				slices.Sort(want.Determining)
				if len(want.Determining) == 0 {
					want.Determining = nil
				}
				if diff := cmp.Diff(want, mine); diff != "" {
					b.Fatalf("request %d: %s", i, diff)
				}
			}
			for b.Loop() {
				_, _ = s.Decide(&asked[0])
			}
			mine := turns(func() { _, _ = s.Decide(&asked[0]) })[0]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(mine), "copse-ns/op")
			b.ReportMetric(float64(theirs[0].Nanoseconds), "rust-ns/op")
			b.ReportMetric(float64(theirs[0].Nanoseconds)/float64(mine), "times-faster")
		})
	}
}

func askRust(b *testing.B, texts map[string]string, asked []copse.Request) (answers []rustAnswer) {
	b.Helper()
	dir := b.TempDir()
	write := func(name string, v any) {
		text, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	write("policies.json", texts)
	var list []map[string]string
	for _, r := range asked {
		list = append(list, map[string]string{
			"principal": r.Principal.String(), "action": r.Action.String(), "resource": r.Resource.String(),
			"entities": string(r.Entities.Bytes), "context": string(r.Context.Bytes),
		})
	}
	write("requests.json", list)
	out, err := exec.Command(filepath.Join("rust", "target", "release", "copse-bench-rust"), dir).Output()
	if err != nil {
		b.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var a rustAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			b.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(asked) {
		b.Fatalf("%d answers to %d requests", len(answers), len(asked))
	}
	return answers
}
