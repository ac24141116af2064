package access

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

func TestPagingTokens(t *testing.T) {
	s := newService(t)
	const call, position = "ListPolicies ps1", "policy/with \x00 and ünicode"
	token := s.SealPage(call, position)
	if !regexp.MustCompile(`^[A-Za-z0-9-_=+/.]*$`).MatchString(token) {
		t.Errorf("token %q has characters that AVP's clients refuse", token)
	}
	other := newService(t, func(c *Config) { c.MasterKey = testMaster(9) })
	flip := func(i int) string {
		b := []byte(token)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		service     *Service
		call, token string
	}{
		"another call":       {s, "ListPolicies ps2", token},
		"longer call":        {s, call + "x", token},
		"another master key": {other, call, token},
		"first byte changed": {s, call, flip(0)},
		"middle changed":     {s, call, flip(len(token) / 2)},
		"last byte changed":  {s, call, flip(len(token) - 1)},
		"cut":                {s, call, token[:len(token)-1]},
		"extended":           {s, call, token + "A"},
		"not base64":         {s, call, "!" + token},
		"line break":         {s, call, token + "\n"},
		"short":              {s, call, "AA"},
		"very long":          {s, call, strings.Repeat("A", 1<<20)},
		"a sealed secret":    {s, call, base64.RawURLEncoding.EncodeToString(seal(s.sealer, position, call))},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := s.OpenPage(call, token); err != nil || got != position {
				t.Fatalf("untampered: %q, %v", got, err)
			}
			got, err := c.service.OpenPage(c.call, c.token)
			wantKind(t, err, copse.Invalid)
			if got != "" || !strings.HasPrefix(err.Error(), "nextToken is not one of this call's") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	if got, err := s.OpenPage(call, ""); got != "" || err != nil {
		t.Errorf("the start: %q, %v", got, err)
	}
	if s.SealPage(call, "") == "" {
		t.Error("an empty position must not look like the start")
	}
}

func TestPagingTokensOutliveARestart(t *testing.T) {
	token := newService(t).SealPage("c", "p")
	if got, err := newService(t).OpenPage("c", token); err != nil || got != "p" {
		t.Errorf("%q, %v", got, err)
	}
}
