package engine

import (
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

func compileText(t *testing.T, schema *Schema, settings copse.Settings, texts ...string) *Snapshot {
	t.Helper()
	var sources []Source
	for i, text := range texts {
		p, err := ParsePolicy("p", []byte(text))
		if err != nil {
			t.Fatalf("parse %s: %v", text, err)
		}
		sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID("p" + string(rune('0'+i)))}, Policy: p})
	}
	s, err := Compile(schema, settings, sources)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func uid(typ, id string) types.EntityUID {
	return types.NewEntityUID(types.EntityType(typ), types.String(id))
}

func TestDecideBothFormats(t *testing.T) {
	s := compileText(t, nil, copse.Settings{},
		`permit(principal in Group::"g", action == Action::"view", resource) when { resource.n == 9007199254740993 && context.ok };`)
	req := &copse.Request{
		Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d"),
		Entities: copse.Data{Format: copse.FormatAVPList, Bytes: []byte(`[
			{"identifier":{"entityType":"User","entityId":"a"},"parents":[{"entityType":"Group","entityId":"g"}]},
			{"identifier":{"entityType":"Doc","entityId":"d"},"attributes":{"n":{"long":9007199254740993}}}]`)},
		Context: copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"ok":{"boolean":true}}`)},
	}
	got, err := s.Decide(req)
	if err != nil || got.Decision != copse.Allow || len(got.Determining) != 1 {
		t.Fatalf("AVP format: %+v %v", got, err)
	}
	req.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`[
		{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[{"type":"Group","id":"g"}]},
		{"uid":{"__entity":{"type":"Doc","id":"d"}},"attrs":{"n":9007199254740993},"parents":[]}]`)}
	req.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`{"ok":true}`)}
	got, err = s.Decide(req)
	if err != nil || got.Decision != copse.Allow || len(got.Determining) != 1 {
		t.Fatalf("Cedar JSON: %+v %v", got, err)
	}
}
