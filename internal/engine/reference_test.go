//go:build !race

package engine

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// The reference is Cedar's own implementation, as its authors publish it for JavaScript, in a process
// of its own. It judges what the corpus does not have: templates, enum types, several policies at once,
// warnings, parents of parents, cycles.
const referenceVersion = "4.12.0"

type reference struct {
	to     *bufio.Writer
	answer *bufio.Scanner
}

func startReference(t *testing.T) *reference {
	t.Helper()
	dir := filepath.Join("testdata", "reference")
	installReference(t, dir)
	node := exec.Command("node", "reference.js")
	node.Dir = dir
	node.Stderr = os.Stderr
	to, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatalf("the reference needs Node.js (scripts/deps installs it): %v", err)
	}
	t.Cleanup(func() {
		_ = to.Close()
		_, _ = io.Copy(io.Discard, from)
		if err := node.Wait(); err != nil {
			t.Error(err)
		}
	})
	r := &reference{to: bufio.NewWriter(to), answer: bufio.NewScanner(from)}
	r.answer.Buffer(nil, 16<<20)
	var hello struct{ Version string }
	r.read(t, &hello)
	if hello.Version != referenceVersion {
		t.Fatalf("the reference is %s, want %s", hello.Version, referenceVersion)
	}
	return r
}

// installReference brings the pinned package, unless it is there.
func installReference(t *testing.T, dir string) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(dir, "node_modules", "@cedar-policy", "cedar-wasm", "package.json"))
	if err == nil && strings.Contains(string(manifest), `"version": "`+referenceVersion+`"`) {
		return
	}
	npm := exec.Command("npm", "ci", "--silent")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// ask calls a function of the reference with a JSON text.
func (r *reference) ask(t *testing.T, call, input string, answer any) {
	t.Helper()
	line, err := json.Marshal(map[string]string{"call": call, "input": input})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.to.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	if err := r.to.Flush(); err != nil {
		t.Fatal(err)
	}
	r.read(t, answer)
}

func (r *reference) read(t *testing.T, answer any) {
	t.Helper()
	if !r.answer.Scan() {
		t.Fatalf("the reference ended: %v", r.answer.Err())
	}
	if err := json.Unmarshal(r.answer.Bytes(), answer, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("%s: %v", r.answer.Bytes(), err)
	}
}

type referenceError struct {
	PolicyID string
	Error    struct{ Message string }
}

// referenceVerdict is what isAuthorized and validate answer.
type referenceVerdict struct {
	Type     string
	Errors   []struct{ Message string } // of a failure: the input was refused
	Response struct {
		Decision    string
		Diagnostics struct {
			Reason []string
			Errors []referenceError
		}
	}
	ValidationErrors, ValidationWarnings []referenceError
}

func (v referenceVerdict) refused() bool { return v.Type == "failure" }

// judged puts a decision in the judge's form. Messages are compared by their kind: the two
// implementations word them differently here and there.
func (v referenceVerdict) judged() judged {
	var out judged
	if v.Response.Decision == "allow" {
		out.decision = copse.Allow
	}
	out.determining = v.Response.Diagnostics.Reason
	slices.Sort(out.determining)
	for _, e := range v.Response.Diagnostics.Errors {
		out.errors = append(out.errors, e.PolicyID+": "+errorKind(e.Error.Message))
	}
	slices.Sort(out.errors)
	return out
}

// errorKind cuts a message down to what kind of error it is.
func errorKind(message string) string {
	for _, kind := range errorKinds {
		if strings.Contains(message, kind) {
			return kind
		}
	}
	if strings.Contains(message, "error while evaluating") {
		return "error parsing" // the reference's words for text that is no value of an extension type
	}
	return message
}

// sameAs compares an answer with the reference's. Of a left operand of a wrong type cedar-go, and so the
// engine, says so before it looks at the right one; the reference evaluates both first, and may find
// another error there. The policy is in error either way.
func (v referenceVerdict) sameAs(r copse.Response) bool {
	got, want := verdictOf(r), v.judged()
	if got.decision != want.decision || !slices.Equal(got.determining, want.determining) || len(got.errors) != len(want.errors) {
		return false
	}
	for i, e := range r.Errors {
		kind := errorKind(e.Message)
		id, wanted, _ := strings.Cut(want.errors[i], ": ")
		if id != string(e.Policy.ID) || kind != wanted && kind != "type error" {
			return false
		}
	}
	return true
}

// policySetJSON writes policies as the reference takes them: links stay links.
func policySetJSON(policies map[string]written) string {
	statics, templates, links := map[string]string{}, map[string]string{}, []string{}
	for id, w := range policies {
		if !w.isLink() {
			statics[id] = w.text
			continue
		}
		templates["template "+id] = w.text
		var values []string
		if w.principal != nil {
			values = append(values, `"?principal":`+cedarUIDJSON(*w.principal))
		}
		if w.resource != nil {
			values = append(values, `"?resource":`+cedarUIDJSON(*w.resource))
		}
		links = append(links, fmt.Sprintf(`{"templateId":%q,"newId":%q,"values":{%s}}`, "template "+id, id, strings.Join(values, ",")))
	}
	return fmt.Sprintf(`{"staticPolicies":%s,"templates":%s,"templateLinks":[%s]}`, textsJSON(statics), textsJSON(templates), strings.Join(links, ","))
}

func textsJSON(texts map[string]string) string {
	out, err := json.Marshal(texts, jsontext.AllowInvalidUTF8(false))
	if err != nil {
		panic(err)
	}
	return string(out)
}

func cedarUIDJSON(u types.EntityUID) string {
	return fmt.Sprintf(`{"type":%s,"id":%s}`, quoted(string(u.Type)), quoted(string(u.ID)))
}

// authorizationJSON writes a call of isAuthorized. Without a schema the actions come as entities.
func authorizationJSON(schema, policies, entities, context string, request types.Request) string {
	withSchema := ""
	if schema != "" {
		withSchema = fmt.Sprintf(`"schema":%s,"validateRequest":true,`, schema)
	}
	return fmt.Sprintf(`{%s"principal":%s,"action":%s,"resource":%s,"context":%s,"policies":%s,"entities":%s}`, withSchema,
		cedarUIDJSON(request.Principal), cedarUIDJSON(request.Action), cedarUIDJSON(request.Resource), context, policies, entities)
}
