package conformance

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// model is AWS's own description of the service, as botocore ships it: operations, members, the
// constraints of each member, and the exceptions of each operation. The tests that walk it need no
// table of ours, and a newer model is a newer line in requirements.txt.
type model struct {
	Operations map[string]struct {
		Input, Output ref
		Errors        []ref
	}
	Shapes map[string]*shape
}

type ref struct{ Shape string }

type shape struct {
	Type               string
	Members            map[string]ref
	Required           []string
	Member, Key, Value ref
	Min, Max           *int
	Pattern            string
	Enum               []string
	Union              bool
}

func loadModel(t *testing.T) *model {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(python(t), "lib", "python3*", "site-packages", "botocore", "data", "verifiedpermissions", "*", "service-2.json.gz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the service model: %v %v", found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	m := new(model)
	if err := json.NewDecoder(text).Decode(m); err != nil {
		t.Fatal(err)
	}
	if len(m.Operations) != 34 {
		t.Fatalf("the model has %d operations, want 34", len(m.Operations))
	}
	return m
}

// memberNames are sorted, so that a walk is the same each time.
func (s *shape) memberNames() []string {
	names := make([]string, 0, len(s.Members))
	for name := range s.Members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// matches tells whether text has the shape's pattern, as a whole.
func (s *shape) matches(text string) bool {
	if s.Pattern == "" {
		return true
	}
	// \w and \d are ASCII in Go as in Java; . does not match a line break in either.
	return regexp.MustCompile(`^(?:` + s.Pattern + `)$`).MatchString(text)
}

// check tells how a decoded JSON value differs from a shape.
func (m *model) check(shapeName string, v any, path string) (problems []string) {
	s := m.Shapes[shapeName]
	wrong := func(format string, args ...any) {
		problems = append(problems, path+": "+fmt.Sprintf(format, args...))
	}
	switch s.Type {
	case "structure":
		members, ok := v.(map[string]any)
		if !ok {
			wrong("is no object: %v", v)
			return problems
		}
		for _, name := range s.Required {
			if members[name] == nil {
				wrong("%s is missing", name)
			}
		}
		if s.Union && len(members) != 1 {
			wrong("a union with %d members", len(members))
		}
		for name, value := range members {
			member, known := s.Members[name]
			if !known {
				wrong("%s is no member", name)
				continue
			}
			problems = append(problems, m.check(member.Shape, value, path+"."+name)...)
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			wrong("is no list: %v", v)
		}
		for i, item := range list {
			problems = append(problems, m.check(s.Member.Shape, item, fmt.Sprintf("%s.%d", path, i))...)
		}
	case "map":
		entries, ok := v.(map[string]any)
		if !ok {
			wrong("is no map: %v", v)
		}
		for name, item := range entries {
			problems = append(problems, m.check(s.Value.Shape, item, path+"."+name)...)
		}
	case "timestamp":
		text, ok := v.(string)
		if _, err := time.Parse(time.RFC3339Nano, text); !ok || err != nil {
			wrong("is no RFC 3339 text: %v", v)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			wrong("is no boolean: %v", v)
		}
	case "integer", "long":
		n, ok := v.(json.Number)
		if _, err := n.Int64(); !ok || err != nil {
			wrong("is no integer: %v", v)
		}
	case "string":
		text, ok := v.(string)
		switch {
		case !ok:
			wrong("is no string: %v", v)
		case len(s.Enum) > 0 && !slices.Contains(s.Enum, text):
			wrong("%q is none of %v", text, s.Enum)
		case s.Min != nil && utf8.RuneCountInString(text) < *s.Min, s.Max != nil && utf8.RuneCountInString(text) > *s.Max:
			wrong("the length of %q is out of bounds", text)
		case !s.matches(text):
			wrong("%q does not match %s", text, s.Pattern)
		}
	default:
		wrong("the model has a %s here, which this test does not know", s.Type)
	}
	return problems
}

// errorsOf are the exceptions that an operation documents.
func (m *model) errorsOf(operation string) []string {
	var names []string
	for _, e := range m.Operations[operation].Errors {
		names = append(names, e.Shape)
	}
	return names
}

// decode keeps numbers as they are written.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}
