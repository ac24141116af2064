package access

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestSecretsAreNeverPrinted(t *testing.T) {
	const hidden = "hunter2hunter2hunter2"
	s := newService(t)
	values := map[string]any{
		"Secret":           Secret(hidden),
		"pointer":          func() *Secret { s := Secret(hidden); return &s }(),
		"in a slice":       []Secret{hidden},
		"in a map":         map[string]Secret{"k": hidden},
		"in a struct":      struct{ S Secret }{hidden},
		"Config":           Config{Root: hidden, RootID: rootID, MasterKey: MasterKey(hidden)},
		"MasterKey":        MasterKey(hidden),
		"record":           newRecord(Key{ID: "CPK"}, hidden),
		"record in struct": struct{ R *record }{newRecord(Key{}, hidden)},
	}
	forms := []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden), strings.Trim(fmt.Sprintf("%d", []byte(hidden)), "[]")}
	check := func(t *testing.T, how, got string) {
		t.Helper()
		for _, form := range forms {
			if strings.Contains(got, form) {
				t.Errorf("%s shows it: %s", how, got)
			}
		}
	}
	for name, v := range values {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%t"} {
				check(t, verb, fmt.Sprintf(verb, v))
			}
			var buf bytes.Buffer
			slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "v", v)
			slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "v", v)
			check(t, "slog", buf.String())
			if name == "Config" {
				return // holds functions and interfaces that no JSON has
			}
			old, _ := stdjson.Marshal(v)
			check(t, "encoding/json", string(old))
			strict, _ := json.Marshal(v)
			check(t, "json", string(strict))
		})
	}
	if got := fmt.Sprintf("%v %s %q", Secret(hidden), Secret(hidden), MasterKey(hidden)); got != "[secret] [secret] [secret]" {
		t.Errorf("printed %s", got)
	}
	_, err := s.Bearer(t.Context(), "copse_"+rootID+"_"+hidden)
	check(t, "error", fmt.Sprintf("%v %+v %#v", err, err, err))
}
