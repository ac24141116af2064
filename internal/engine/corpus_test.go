//go:build !race

package engine

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// The Cedar corpus that cedar-go carries: made by Cedar's authors with their reference, so it knows
// nothing of this engine. Its size is asserted, and a corpus that can't be found fails.
const (
	corpusCases    = 7_750
	corpusRequests = 62_000
)

type corpusCase struct {
	Schema         string `json:"schema"`
	Policies       string `json:"policies"`
	ShouldValidate bool   `json:"shouldValidate"`
	Entities       string `json:"entities"`
	Requests       []struct {
		Desc      string         `json:"description"`
		Principal corpusUID      `json:"principal"`
		Action    corpusUID      `json:"action"`
		Resource  corpusUID      `json:"resource"`
		Context   jsontext.Value `json:"context"`
		Decision  cedar.Decision `json:"decision"`
		Reasons   []string       `json:"reason"`
		Errors    []string       `json:"errors"`
	} `json:"requests"`
}

type corpusUID struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

func (u corpusUID) uid() types.EntityUID { return uid(u.Type, u.ID) }

func corpusFiles(t *testing.T, archive string) map[string][]byte {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		t.Fatalf("finding the cedar-go module: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), archive))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	reader := tar.NewReader(zipped)
	for {
		head, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[head.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

// corpusVerdict is what Cedar's reference says about a case's policy.
type corpusVerdict struct {
	PolicyValidation struct {
		Errors []string `json:"strictErrors"`
	} `json:"policyValidation"`
}

func TestCorpus(t *testing.T) {
	files := corpusFiles(t, "corpus-tests.tar.gz")
	verdicts := corpusFiles(t, "corpus-tests-validation.tar.gz")
	var names []string
	for name := range files {
		if strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".entities.json") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var cases, requests, failed atomic.Int64
	work := make(chan string)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for name := range work {
				n, err := runCorpusCase(files, verdicts, name)
				cases.Add(1)
				requests.Add(int64(n))
				if err != nil && failed.Add(1) <= 30 {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	for _, name := range names {
		work <- name
	}
	close(work)
	workers.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d cases failed", failed.Load())
	}
	if cases.Load() != corpusCases || requests.Load() != corpusRequests {
		t.Errorf("ran %d cases and %d requests, want %d and %d", cases.Load(), requests.Load(), corpusCases, corpusRequests)
	}
}

func runCorpusCase(files, verdicts map[string][]byte, name string) (int, error) {
	var c corpusCase
	if err := json.Unmarshal(files[name], &c); err != nil {
		return 0, err
	}
	schema, err := ParseSchema(c.Schema, files[c.Schema], SyntaxCedar)
	if err != nil {
		return 0, fmt.Errorf("schema: %w", err)
	}
	policies, err := ParsePolicies(c.Policies, files[c.Policies])
	if err != nil {
		return 0, fmt.Errorf("policies: %w", err)
	}
	var v corpusVerdict
	id := strings.TrimSuffix(strings.TrimPrefix(name, "corpus-tests/"), ".json")
	if err := json.Unmarshal(verdicts["corpus-tests-validation/"+id+".validation.json"], &v); err != nil {
		return 0, fmt.Errorf("verdict: %w", err)
	}
	if err := sameFindings(schema.Validate(policies...), v.PolicyValidation.Errors); err != nil {
		return 0, fmt.Errorf("strict validation: %w", err)
	}
	sources := make([]Source, len(policies))
	for i, p := range policies {
		sources[i] = Source{Ref: copse.PolicyRef{ID: copse.PolicyID(fmt.Sprintf("policy%d", i))}, Policy: p}
	}
	snapshot, err := Compile(schema, copse.Settings{CheckRequests: true}, sources)
	if err != nil {
		return 0, err
	}
	entities, err := withoutActions(files[c.Entities])
	if err != nil {
		return 0, err
	}
	for i, r := range c.Requests {
		got, err := snapshot.Decide(&copse.Request{
			Principal: r.Principal.uid(), Action: r.Action.uid(), Resource: r.Resource.uid(),
			Entities: copse.Data{Format: copse.FormatCedarJSON, Bytes: entities},
			Context:  copse.Data{Format: copse.FormatCedarJSON, Bytes: r.Context},
		})
		if err != nil {
			return i, fmt.Errorf("%s: %w", r.Desc, err)
		}
		var determining, failed []string
		for _, p := range got.Determining {
			determining = append(determining, string(p.ID))
		}
		for _, e := range got.Errors {
			failed = append(failed, string(e.Policy.ID))
		}
		if (got.Decision == copse.Allow) != bool(r.Decision) || !slices.Equal(determining, r.Reasons) || !slices.Equal(failed, r.Errors) {
			return i, fmt.Errorf("%s: got %+v, want %v %v %v", r.Desc, got, r.Decision, r.Reasons, r.Errors)
		}
	}
	return len(c.Requests), nil
}

// sameFindings compares what validation found with what the reference found, in its words, each once.
func sameFindings(err error, reference []string) error {
	var got, want []string
	for _, f := range findingsOf(err) {
		got = append(got, f.Message)
	}
	for _, message := range reference {
		want = append(want, clip(strings.TrimPrefix(message, "for policy `policy0`, ")))
	}
	slices.Sort(got)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		return fmt.Errorf("got %q, the reference says %q", got, want)
	}
	return nil
}

// withoutActions takes the action entities out of a case's entities: here they come from the schema.
func withoutActions(text []byte) ([]byte, error) {
	var all []jsontext.Value
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	var kept []jsontext.Value
	for _, e := range all {
		var head struct {
			UID corpusUID `json:"uid"`
		}
		if err := json.Unmarshal(e, &head); err != nil {
			return nil, err
		}
		if !isActionType(types.EntityType(head.UID.Type)) {
			kept = append(kept, e)
		}
	}
	if kept == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(kept)
}
