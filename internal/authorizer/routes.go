package authorizer

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

// RouteTable says what a gateway's requests ask: which action on which resource. It is immutable. What no
// route matches is denied.
//
// At each segment from the left, a literal goes before {name}, and {name} before {name...}. Two routes
// that match the same are refused when the table is read, so the order of the file means nothing. Any
// number of requests may be matched at once.
type RouteTable struct {
	root  node
	count int
}

// Route is what one kind of request asks. A route is shared by all requests that match
// it, and must not be changed.
type Route struct {
	Pattern  string // as it is in the file: "GET /invoices/{id}"
	Line     int    // in the file
	Action   types.EntityUID
	Service  string // audience of the signed context; empty: none is signed
	resource struct {
		Type types.EntityType
		ID   template
	}
	context []attribute
	params  []string // of the path, in order
}

// attribute of the decision's context, always a string. One whose template asks for what the request does
// not have is left out.
type attribute struct {
	name  string
	value template
}

// template is text with parameters in it. The pieces are put together as they are; none is looked at
// again for parameters, so a value can't bring in one.
type template []piece

// piece is literal text, or the name of a value and where it is looked for.
type piece struct {
	literal string
	from    source
	name    string
}

// source is where a piece's text comes from.
type source uint8

const (
	fromText source = iota
	fromPath
	fromQuery
	fromHeader
)

// node is a segment of the patterns' tree. Each shape of path has one node, so what a request can visit
// is bounded by the table.
type node struct {
	literals map[string]*node
	param    *node
	rest     map[string]*Route // by method: {name...} matches one or more segments
	routes   map[string]*Route // by method: the pattern ends here
}

// anyMethod stands for all methods; one that is named goes before it.
const anyMethod = "*"

// Len is the number of routes.
func (t *RouteTable) Len() int { return t.count }

// Asked is a request as a gateway tells of it. It is not checked yet: see [RouteTable.Match].
type Asked struct {
	Method string
	Target string      // path and query as the client sent them, byte for byte
	Header http.Header // for context attributes of routes; may be nil
}

// Matched is what a request asks. Path is what a signed context is bound to, in the spelling in which
// the service compares it.
type Matched struct {
	Route    *Route
	Path     string // in canonical form
	Resource types.EntityUID
	Context  copse.Data
}

// Match finds the route of a request. Denied: there is none, or the request can be read in more than
// one way: an ambiguous path, a parameter that stands twice. In all cases the caller gets one answer;
// the detail is for the log.
func (t *RouteTable) Match(in *Asked) (*Matched, error) {
	if !isMethod(in.Method) {
		return nil, copse.Errorf(copse.Denied, "the method %q is not one", in.Method)
	}
	path, err := token.CanonicalPath(in.Target)
	if err != nil {
		return nil, copse.Errorf(copse.Denied, "%w", err)
	}
	// Cut before unescaping, so that an escaped slash could never make a segment.
	segments := strings.Split(path[1:], "/")
	values := make([]string, 0, len(segments))
	route := t.root.find(in.Method, segments, &values)
	if route == nil {
		return nil, copse.Errorf(copse.Denied, "no route matches %s %s", in.Method, path)
	}
	// A parameter's value is text, as the service will read it; the pattern was matched on the
	// canonical spelling.
	for i, value := range values {
		if values[i], err = decodeSegments(value); err != nil {
			return nil, err
		}
	}
	m := &Matched{Route: route, Path: path}
	id, ok, err := route.resource.ID.fill(route, values, in)
	switch {
	case err != nil:
		return nil, err
	case !ok || id == "":
		return nil, copse.Errorf(copse.Denied, "the request lacks what the resource of %s is named by", route.Pattern)
	case len(id) > copse.MaxEntityIDBytes:
		return nil, copse.Errorf(copse.Denied, "the resource's id has %d bytes, at most %d", len(id), copse.MaxEntityIDBytes)
	}
	m.Resource = types.NewEntityUID(route.resource.Type, types.String(id))
	m.Context, err = route.contextData(values, in)
	return m, err
}

// find goes down the tree, most specific first, and collects what parameters matched. When a branch
// ends without a route it goes back, and drops what that branch had collected. A path that a literal
// takes for other methods only is still looked for under parameters.
func (n *node) find(method string, segments []string, values *[]string) *Route {
	if len(segments) == 0 {
		return byMethod(n.routes, method)
	}
	segment, mark := segments[0], len(*values)
	if next := n.literals[segment]; next != nil {
		if r := next.find(method, segments[1:], values); r != nil {
			return r
		}
		*values = (*values)[:mark]
	}
	// A parameter is never empty, or a trailing slash would be one.
	if n.param != nil && segment != "" {
		*values = append(*values, segment)
		if r := n.param.find(method, segments[1:], values); r != nil {
			return r
		}
		*values = (*values)[:mark]
	}
	if r := byMethod(n.rest, method); r != nil && segments[len(segments)-1] != "" {
		*values = append(*values, strings.Join(segments, "/"))
		return r
	}
	return nil
}

// byMethod prefers the method that is named.
func byMethod(routes map[string]*Route, method string) *Route {
	if r := routes[method]; r != nil {
		return r
	}
	return routes[anyMethod]
}

// decodeSegments undoes the canonical form's escapes. What is no text is no id.
func decodeSegments(canonical string) (string, error) {
	text, err := url.PathUnescape(canonical)
	if err != nil || !utf8.ValidString(text) {
		return "", copse.Errorf(copse.Denied, "the path holds bytes that are no text")
	}
	return text, nil
}

// fill gives a template's text; false when the request lacks a part of it. An error is something that
// can be read in two ways, and ends the match; a part that is absent does not.
func (t template) fill(r *Route, values []string, in *Asked) (text string, ok bool, err error) {
	for _, p := range t {
		part, found := p.literal, true
		switch p.from {
		case fromText:
		case fromPath:
			// Values are by position: each route has its own names for them.
			for i, name := range r.params {
				if name == p.name {
					part = values[i]
				}
			}
		case fromQuery:
			part, found, err = fromQueryOf(in.Target, p.name)
		case fromHeader:
			part, found, err = single("header", p.name, in.Header.Values(p.name))
		}
		if err != nil || !found {
			return "", false, err
		}
		text += part
	}
	return text, true, nil
}

// fromQueryOf reads all of the query, so one that can't be read is refused even where the name is in
// its good part.
func fromQueryOf(target, name string) (string, bool, error) {
	_, raw, _ := strings.Cut(target, "?")
	query, err := url.ParseQuery(raw)
	if err != nil {
		return "", false, copse.Errorf(copse.Denied, "the query can't be read: %w", err)
	}
	return single("query parameter", name, query[name])
}

// single refuses a value that stands twice: the service might read the other one.
func single(what, name string, values []string) (string, bool, error) {
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", false, copse.Errorf(copse.Denied, "the %s %s stands %d times", what, name, len(values))
	case !utf8.ValidString(values[0]):
		return "", false, copse.Errorf(copse.Denied, "the %s %s is no text", what, name)
	}
	return values[0], true, nil
}

// contextData is a record of strings in Cedar's JSON form, nothing else: no value can be taken for an
// entity. Attributes whose parts are absent are left out, and policies see that they are.
func (r *Route) contextData(values []string, in *Asked) (copse.Data, error) {
	if len(r.context) == 0 {
		return copse.Data{}, nil
	}
	record := make(map[string]string, len(r.context))
	for _, a := range r.context {
		text, ok, err := a.value.fill(r, values, in)
		if err != nil {
			return copse.Data{}, err
		}
		if ok {
			record[a.name] = text
		}
	}
	text, err := json.Marshal(record, jsontext.AllowInvalidUTF8(false))
	if err != nil {
		return copse.Data{}, copse.Errorf(copse.Denied, "the request holds bytes that are no text")
	}
	return copse.Data{Format: copse.FormatCedarJSON, Bytes: text}, nil
}

// isMethod takes methods as they are registered with IANA: capital letters, and a hyphen.
func isMethod(m string) bool {
	for i := range len(m) {
		if c := m[i]; (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return m != "" && len(m) <= 32
}
