package authorizer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

const sampleRoutes = `
routes:
  - route: GET /invoices
    action: list
    resource: Service::"invoices"
  - route: GET,HEAD /invoices/{id}
    action: view
    resource: Invoice::"{id}"
    service: invoices
  - route: GET /invoices/new
    action: draft
    resource: Service::"invoices"
  - route: "* /invoices/{id}/pay"
    action: Shop::Action::"pay"
    resource: Shop::Invoice::"{id}"
    context:
      channel: web
      ref: "{query.ref}"
      device: "{header.X-Device}/{id}"
  - route: GET /files/{folder}/{path...}
    action: read
    resource: File::"{folder}:{path}"
  - route: GET /files/{folder}/index
    action: index
    resource: Folder::"{folder}"
  - route: GET /a/b/
    action: slash
    resource: Service::"a"
`

func parseSample(t testing.TB) *RouteTable {
	t.Helper()
	table, err := ParseRoutes("routes.yaml", []byte(sampleRoutes))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRoutesMatch(t *testing.T) {
	table := parseSample(t)
	if table.Len() != 7 {
		t.Errorf("%d routes", table.Len())
	}
	device := http.Header{"X-Device": {"kiosk"}}
	for _, c := range []struct {
		method, target, action, resource, context string
		header                                    http.Header
	}{
		{"GET", "/invoices", `Action::"list"`, `Service::"invoices"`, "", nil},
		{"GET", "/invoices?id=1&id=2", `Action::"list"`, `Service::"invoices"`, "", nil},
		{"GET", "/invoices/17", `Action::"view"`, `Invoice::"17"`, "", nil},
		{"HEAD", "/invoices/17", `Action::"view"`, `Invoice::"17"`, "", nil},
		{"GET", "/invoices/%31%37", `Action::"view"`, `Invoice::"17"`, "", nil},
		{"GET", "/invoices/a%20%c3%a4", `Action::"view"`, `Invoice::"a ä"`, "", nil},
		// A literal goes before a parameter, but only for the methods it has.
		{"GET", "/invoices/new", `Action::"draft"`, `Service::"invoices"`, "", nil},
		{"HEAD", "/invoices/new", `Action::"view"`, `Invoice::"new"`, "", nil},
		{"POST", "/invoices/17/pay?ref=x%2Fy", `Shop::Action::"pay"`, `Shop::Invoice::"17"`, `{"channel":"web","device":"kiosk/17","ref":"x/y"}`, device},
		{"POST", "/invoices/17/pay", `Shop::Action::"pay"`, `Shop::Invoice::"17"`, `{"channel":"web"}`, nil},
		{"GET", "/files/f/a/b/c", `Action::"read"`, `File::"f:a/b/c"`, "", nil},
		{"GET", "/files/f/index", `Action::"index"`, `Folder::"f"`, "", nil},
		{"GET", "/files/f/index/more", `Action::"read"`, `File::"f:index/more"`, "", nil},
		{"GET", "/a/b/", `Action::"slash"`, `Service::"a"`, "", nil},
	} {
		m, err := table.Match(&Asked{Method: c.method, Target: c.target, Header: c.header})
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.target, err)
			continue
		}
		if got := m.Route.Action.String(); got != c.action {
			t.Errorf("%s %s: action %s, want %s", c.method, c.target, got, c.action)
		}
		if got := m.Resource.String(); got != c.resource {
			t.Errorf("%s %s: resource %s, want %s", c.method, c.target, got, c.resource)
		}
		context := string(m.Context.Bytes)
		if !sameMembers(context, c.context) {
			t.Errorf("%s %s: context %s, want %s", c.method, c.target, context, c.context)
		}
	}
}

// sameMembers compares flat objects whatever the order of their members.
func sameMembers(a, b string) bool {
	split := func(s string) []string {
		parts := strings.Split(strings.Trim(s, "{}"), ",")
		slices.Sort(parts)
		return parts
	}
	return slices.Equal(split(a), split(b))
}

// What can be read in two ways, or by no route, is denied without a decision.
func TestAmbiguousRequestsAreDenied(t *testing.T) {
	table := parseSample(t)
	n := 0
	for _, target := range []string{
		"", "invoices", "*", "http://x/invoices", "//invoices", "/invoices//17", "/./invoices", "/invoices/.", "/invoices/..",
		"/x/../invoices", "/invoices/%2e%2e", "/invoices/%2E", "/invoices/.%2e/17", "/invoices/a%2fb", "/invoices/a%2Fb", "/invoices/a%5cb",
		`/invoices/a\b`, "/invoices/%252e", "/invoices/%25", "/invoices/a;b", "/invoices/a%3bb", "/invoices/%00", "/invoices/a%0d%0ab", "/invoices/a\tb",
		"/invoices/%", "/invoices/%4", "/invoices/%zz", "/invoices/a#b", "/invoices/%ff", "/invoices/%c0%ae", "/invoices/%ed%a0%80", "/invoices/\xff",
		"/invoices/", "/invoices/17/", "/Invoices/17", "/invoices/17/pay/", "/files/f", "/files/f/", "/files/f/a/", "/a/b", "/zebra", "/",
		"/invoices/" + strings.Repeat("a", copse.MaxEntityIDBytes+1),
	} {
		n++
		m, err := table.Match(&Asked{Method: "GET", Target: target})
		if err == nil {
			t.Errorf("%q matched %s as %s", target, m.Route.Pattern, m.Resource)
		} else if copse.KindOf(err) != copse.Denied {
			t.Errorf("%q: %v", target, err)
		}
	}
	for _, method := range []string{"", "get", "GET ", "G\r\nX", "GET\x00", "*", strings.Repeat("A", 33), "DELETE"} {
		n++
		if m, err := table.Match(&Asked{Method: method, Target: "/invoices/17"}); err == nil {
			t.Errorf("method %q matched %s", method, m.Route.Pattern)
		}
	}
	for _, in := range []Asked{
		{Method: "POST", Target: "/invoices/17/pay?ref=1&ref=2"},
		{Method: "POST", Target: "/invoices/17/pay?ref=1&%72ef=2"},
		{Method: "POST", Target: "/invoices/17/pay?ref=%zz"},
		{Method: "POST", Target: "/invoices/17/pay?a=1;ref=2"},
		{Method: "POST", Target: "/invoices/17/pay?ref=%ff"},
		{Method: "POST", Target: "/invoices/17/pay", Header: http.Header{"X-Device": {"a", "b"}}},
		{Method: "POST", Target: "/invoices/17/pay", Header: http.Header{"X-Device": {"\xff"}}},
	} {
		n++
		if m, err := table.Match(&in); err == nil {
			t.Errorf("%+v matched with context %s", in, m.Context.Bytes)
		}
	}
	if n < 50 {
		t.Fatalf("only %d requests", n)
	}
}

func TestRouteFilesAreRefusedWithTheirLine(t *testing.T) {
	route := func(members string) string { return "routes:\n  - " + strings.ReplaceAll(members, "; ", "\n    ") }
	for text, want := range map[string]string{
		"":                                "it is empty",
		"routes: x":                       ":1: expected one list named routes",
		"routes: []\nmore: []":            ":1: expected one list",
		"routes:\n  - x":                  ":2: a route has route, action, resource",
		"routes:\n  - a: [":               "line 2",
		route("action: a"):                ":2: the route has no route",
		route("route: GET /a"):            ":2: the route has no action",
		route("route: GET /a; action: a"): ":2: the route has no resource",
		route("route: GET /a; action: a; resource: T::\"x\"; actoin: b"):                                                                        `:5: there is no member "actoin"`,
		route("route: GET /a; action: a; action: b; resource: T::\"x\""):                                                                        ":4: action is set twice",
		route("route: GET /a; action: [a]; resource: T::\"x\""):                                                                                 ":3: action needs one plain value",
		route("route: /a; action: a; resource: T::\"x\""):                                                                                       ":2: \"/a\" is not a method and a path",
		route("route: get /a; action: a; resource: T::\"x\""):                                                                                   `:2: "get" is not a method`,
		route("route: GET a; action: a; resource: T::\"x\""):                                                                                    `does not begin with a slash`,
		route("route: GET /a//b; action: a; resource: T::\"x\""):                                                                                `canonical`,
		route("route: GET /a/%2e; action: a; resource: T::\"x\""):                                                                               `canonical`,
		route("route: GET /a/%7e; action: a; resource: T::\"x\""):                                                                               `canonical`,
		route("route: GET /a/{id}x; action: a; resource: T::\"x\""):                                                                             `whole segment`,
		route("route: GET /a/x{id}; action: a; resource: T::\"x\""):                                                                             `canonical`,
		route("route: GET /a/{}; action: a; resource: T::\"x\""):                                                                                `whole segment`,
		route("route: GET /{a...}/b; action: a; resource: T::\"x\""):                                                                            `must be its end`,
		route("route: GET /{a}/{a}; action: a; resource: T::\"x\""):                                                                             `is there twice`,
		route("route: GET /a; action: T::\"{x}\"; resource: T::\"x\""):                                                                          `an action has no parameters`,
		route("route: GET /a; action: a\"b; resource: T::\"x\""):                                                                                `in quotes`,
		route("route: GET /a; action: a; resource: x"):                                                                                          `is not a resource`,
		route("route: GET /a; action: a; resource: T::\"\""):                                                                                    `plain id`,
		route("route: GET /a; action: a; resource: T::\"a\\\\b\""):                                                                              `plain id`,
		route("route: GET /a; action: a; resource: 7T::\"a\""):                                                                                  `is not an entity type`,
		route("route: GET /a; action: a; resource: T::\"{id}\""):                                                                                `{id} is not a parameter`,
		route("route: GET /{id}; action: a; resource: T::\"{id\""):                                                                              `a { without its }`,
		route("route: GET /{id}; action: a; resource: T::\"id}\""):                                                                              `a } without its {`,
		route("route: GET /a; action: a; resource: T::\"x\"; context: a"):                                                                       `context is a list`,
		route("route: GET /a; action: a; resource: T::\"x\"; context: {token: a}"):                                                              `is for copse to set`,
		route("route: GET /a; action: a; resource: T::\"x\"; context: {a: 1, a: 2}"):                                                            `is set twice`,
		route("route: GET /a; action: a; resource: T::\"x\"; context: {a: [1]}"):                                                                `attributes are strings`,
		"routes:\n  - {route: 'GET /a', action: a, resource: 'T::\"x\"'}\n---\nroutes:\n  - {route: 'GET /b', action: a, resource: 'T::\"x\"'}": ":3: a second document",
		"routes:\n  - {route: GET /{a}, action: a, resource: 'T::\"x\"'}":                                                                       "did not find expected", // braces are YAML's there
		"routes:\n  - {route: 'GET /{a}', action: a, resource: 'T::\"x\"'}\n  - {route: 'GET,PUT /{b}', action: a, resource: 'T::\"x\"'}":       ":3: GET,PUT /{b} matches the same requests as GET /{a} in line 2",
		"routes:\n  - {route: 'GET /{a...}', action: a, resource: 'T::\"x\"'}\n  - {route: 'GET /{b...}', action: a, resource: 'T::\"x\"'}":     ":3: GET /{b...} matches the same",
	} {
		table, err := ParseRoutes("r.yaml", []byte(text))
		switch {
		case err == nil:
			t.Errorf("accepted %d routes of:\n%s", table.Len(), text)
		case copse.KindOf(err) != copse.Invalid || !strings.Contains(err.Error(), "r.yaml") || !strings.Contains(err.Error(), want):
			t.Errorf("%s\nis refused with: %v\nwant: %s", text, err, want)
		}
	}
}

// The tree against the rule as it is written down: of all routes that match, the one that is most specific
// at the first segment where they differ.
func TestRoutesAgainstTheRule(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 9))
	words := []string{"a", "b", "c"}
	matched, unmatched := 0, 0
	for range 400 {
		var patterns []string
		text := "routes:\n"
		for range 1 + random.IntN(12) {
			segments := make([]string, 1+random.IntN(4))
			for i := range segments {
				segments[i] = words[random.IntN(3)]
				switch random.IntN(3) {
				case 0:
					segments[i] = fmt.Sprintf("{p%d}", i)
				case 1:
					if i == len(segments)-1 && random.IntN(2) == 0 {
						segments[i] = fmt.Sprintf("{p%d...}", i)
					}
				}
			}
			pattern := "GET /" + strings.Join(segments, "/")
			if !slices.Contains(patterns, pattern) {
				patterns = append(patterns, pattern)
				text += fmt.Sprintf("  - {route: '%s', action: a, resource: 'T::\"x\"'}\n", pattern)
			}
		}
		table, err := ParseRoutes("r.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 40 {
			segments := make([]string, 1+random.IntN(5))
			for i := range segments {
				segments[i] = words[random.IntN(3)]
			}
			want := mostSpecific(patterns, segments)
			m, err := table.Match(&Asked{Method: "GET", Target: "/" + strings.Join(segments, "/")})
			switch {
			case err != nil && want == "":
				unmatched++
			case err == nil && m.Route.Pattern == want:
				matched++
			default:
				t.Fatalf("/%s: got %v %v, want %q of\n%s", strings.Join(segments, "/"), m, err, want, text)
			}
		}
	}
	if matched < 2000 || unmatched < 2000 {
		t.Fatalf("%d matched and %d did not: the generator is lopsided", matched, unmatched)
	}
}

// mostSpecific is a full scan.
func mostSpecific(patterns, segments []string) string {
	best, bestRank := "", ""
	for _, p := range patterns {
		rank, ok := "", true
		parts := strings.Split(strings.TrimPrefix(p, "GET /"), "/")
		for i, part := range parts {
			switch {
			case strings.HasSuffix(part, "...}"):
				ok = ok && i < len(segments)
				rank += "1"
			case i >= len(segments):
				ok = false
			case strings.HasPrefix(part, "{"):
				rank += "2"
			default:
				ok = ok && part == segments[i]
				rank += "3"
			}
		}
		if !strings.HasSuffix(p, "...}") {
			ok = ok && len(parts) == len(segments)
		}
		if ok && rank > bestRank {
			best, bestRank = p, rank
		}
	}
	return best
}
