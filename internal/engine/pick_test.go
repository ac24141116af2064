package engine

import (
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

// What stands in records within records counts once against what a line holds, and what is too much is cut.
func TestPickedBytesCountOnce(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource);`)
	rule := &Picking{Members: map[string]*Picking{"a": {Members: map[string]*Picking{"b": {Members: map[string]*Picking{"c": {Given: true, Keep: KeepValue}}}}}}}
	pick := func(n int) string {
		req := viewRequest()
		req.Context = cedarJSON(`{"a": {"b": {"c": "` + strings.Repeat("x", n) + `"}}}`)
		got, err := s.Pick(req, Pickings{Context: rule}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(got.Context)
	}
	if got := pick(maxPicked - 100); strings.Contains(got, "__cut") || !strings.Contains(got, "xxx") {
		t.Errorf("what fits is cut: %.100s", got)
	}
	if got := pick(maxPicked + 1); !strings.Contains(got, `"__cut":true`) || strings.Contains(got, "xxx") {
		t.Errorf("what does not fit is kept: %.100s", got)
	}
}
