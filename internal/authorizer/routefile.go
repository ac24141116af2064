package authorizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"go.yaml.in/yaml/v3"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

// MaxRoutes of one table. More than these are likelier a mistake than a table; each costs memory for as
// long as it is in force.
const MaxRoutes = 10_000

// ParseRoutes reads a route table in YAML; docs/gateway.md describes it. Every error names file and
// line. Nothing of a table that has an error is used, so a route is never missing while others are in
// force. One root and one list: a key that is misspelt must not leave a table empty, which would deny
// everything in silence.
func ParseRoutes(file string, text []byte) (*RouteTable, error) {
	var doc, behind yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&doc)
	if err == nil {
		err = decoder.Decode(&behind)
	}
	p := routeParser{file: file}
	switch {
	case err == nil:
		return nil, p.errorf(&behind, "a second document begins here, which would not be read: put all routes into one list")
	case !errors.Is(err, io.EOF):
		return nil, copse.Errorf(copse.Invalid, "%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil, copse.Errorf(copse.Invalid, "%s: it is empty; it should hold a list named routes", file)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode || len(root.Content) != 2 || root.Content[0].Value != "routes" || root.Content[1].Kind != yaml.SequenceNode {
		return nil, p.errorf(root, "expected one list named routes")
	}
	list := root.Content[1].Content
	if len(list) > MaxRoutes {
		return nil, p.errorf(root.Content[1], "there are %d routes, at most %d", len(list), MaxRoutes)
	}
	table := &RouteTable{}
	for _, entry := range list {
		if err := p.entry(table, entry); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// routeParser holds what errors need.
type routeParser struct{ file string }

// errorf names the line on which a person will look for the mistake.
func (p *routeParser) errorf(n *yaml.Node, format string, args ...any) error {
	return copse.Errorf(copse.Invalid, "%s:%d: %s", p.file, n.Line, fmt.Sprintf(format, args...))
}

// entry reads one route and puts it into the table, once for each of its methods.
func (p *routeParser) entry(table *RouteTable, n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return p.errorf(n, "a route has route, action, resource, and perhaps service and context")
	}
	// YAML's own duplicate keys are looked for here, as nodes don't refuse them.
	members := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !slices.Contains([]string{"route", "action", "resource", "service", "context"}, key.Value) {
			return p.errorf(key, "there is no member %q; a route has route, action, resource, service and context", key.Value)
		}
		if members[key.Value] != nil {
			return p.errorf(key, "%s is set twice", key.Value)
		}
		// A list or an alias is not the text that it seems to be.
		if key.Value != "context" && (value.Kind != yaml.ScalarNode || value.Value == "") {
			return p.errorf(value, "%s needs one plain value", key.Value)
		}
		members[key.Value] = value
	}
	for _, name := range []string{"route", "action", "resource"} {
		if members[name] == nil {
			return p.errorf(n, "the route has no %s", name)
		}
	}
	// Line is the one on which the route's mapping begins.
	r := &Route{Pattern: members["route"].Value, Line: n.Line}
	methods, segments, err := p.pattern(members["route"], r)
	if err != nil {
		return err
	}
	if err := p.question(members, r); err != nil {
		return err
	}
	table.count++
	return p.insert(table, members["route"], r, methods, segments)
}

// pattern reads "GET,HEAD /invoices/{id}". methods are as they are written, and may hold [anyMethod];
// segments end in an empty one where the path ends in a slash, which is another path than without. The
// parameters' names go into r.
func (p *routeParser) pattern(n *yaml.Node, r *Route) (methods, segments []string, err error) {
	before, path, ok := strings.Cut(n.Value, " ")
	if !ok {
		return nil, nil, p.errorf(n, "%q is not a method and a path, such as GET /invoices/{id}", n.Value)
	}
	methods = strings.Split(before, ",")
	for _, m := range methods {
		if m != anyMethod && !isMethod(m) {
			return nil, nil, p.errorf(n, "%q is not a method; write it in capitals, several with commas between, or * for any", m)
		}
	}
	if !strings.HasPrefix(path, "/") {
		return nil, nil, p.errorf(n, "the path %q does not begin with a slash", path)
	}
	segments = strings.Split(path[1:], "/")
	for i, segment := range segments {
		name, isParam := strings.CutPrefix(segment, "{")
		if !isParam {
			// A literal in another spelling would be a rule that looks as if it held and never does.
			if canonical, err := token.CanonicalPath("/" + segment); err != nil || canonical != "/"+segment || segment == "" && i < len(segments)-1 {
				return nil, nil, p.errorf(n, "the segment %q is not in canonical form, so no request could match it", segment)
			}
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		name, isRest := strings.CutSuffix(name, "...")
		switch {
		case !closed || !isName(name):
			return nil, nil, p.errorf(n, "%q is not a parameter such as {id}, which is a whole segment", segment)
		case isRest && i < len(segments)-1:
			// Behind the rest there is nothing left to match.
			return nil, nil, p.errorf(n, "%q takes the rest of the path and must be its end", segment)
		case slices.Contains(r.params, name):
			return nil, nil, p.errorf(n, "the parameter %s is there twice", name)
		}
		r.params = append(r.params, name)
	}
	return methods, segments, nil
}

// question reads what is asked: action, resource, context, and who hears of the answer. Slots may name
// any parameter that [routeParser.pattern] has put into r.
func (p *routeParser) question(members map[string]*yaml.Node, r *Route) error {
	action := members["action"]
	entityType, id, isUID, err := p.uid(action)
	switch {
	case err != nil:
		return err
	case !isUID:
		entityType, id = "Action", action.Value
	case strings.ContainsAny(id, "{}"):
		return p.errorf(action, "an action has no parameters")
	}
	if len(id) > copse.MaxActionIDBytes {
		return p.errorf(action, "the action has %d bytes, at most %d", len(id), copse.MaxActionIDBytes)
	}
	r.Action = types.NewEntityUID(types.EntityType(entityType), types.String(id))

	resource := members["resource"]
	if entityType, id, isUID, err = p.uid(resource); err != nil {
		return err
	}
	// A resource without an id would be one for all requests of the route: that is
	// written as a plain id.
	if !isUID {
		return p.errorf(resource, `%q is not a resource such as Invoice::"{id}"`, resource.Value)
	}
	r.resource.Type = types.EntityType(entityType)
	if r.resource.ID, err = p.template(resource, r, id); err != nil {
		return err
	}
	if service := members["service"]; service != nil {
		r.Service = service.Value
	}
	return p.context(members["context"], r)
}

// uid reads Type::"id"; false for what has no such form. An id is taken as it is: quotes and
// backslashes in it are refused, so there are no escapes to agree on.
func (p *routeParser) uid(n *yaml.Node) (entityType, id string, isUID bool, err error) {
	at := strings.Index(n.Value, `::"`)
	// What looks like an attempt at one is a mistake, and not an action's name.
	if at < 0 {
		if strings.ContainsAny(n.Value, `"\{}`) {
			return "", "", false, p.errorf(n, `%q: write an id in quotes after its type: Type::"id"`, n.Value)
		}
		return "", "", false, nil
	}
	entityType, id = n.Value[:at], n.Value[at+3:]
	id, closed := strings.CutSuffix(id, `"`)
	if !closed || id == "" || strings.ContainsAny(id, `"\`) {
		return "", "", false, p.errorf(n, `%q is not Type::"id" with a plain id`, n.Value)
	}
	for part := range strings.SplitSeq(entityType, "::") {
		if !isName(part) {
			return "", "", false, p.errorf(n, "%q is not an entity type", entityType)
		}
	}
	return entityType, id, true, nil
}

// context reads attributes. Two names are kept free, for what copse itself tells about
// the token and the request.
func (p *routeParser) context(n *yaml.Node, r *Route) error {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return p.errorf(n, "context is a list of names with texts")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case value.Kind != yaml.ScalarNode:
			return p.errorf(value, "context.%s needs one plain value; attributes are strings", key.Value)
		case !isName(key.Value):
			return p.errorf(key, "context: %q is not an attribute's name", key.Value)
		case key.Value == "token" || key.Value == "copse":
			return p.errorf(key, "context.%s is for copse to set", key.Value)
		case seen[key.Value]:
			return p.errorf(key, "context.%s is set twice", key.Value)
		}
		seen[key.Value] = true
		text, err := p.template(value, r, value.Value)
		if err != nil {
			return err
		}
		r.context = append(r.context, attribute{key.Value, text})
	}
	return nil
}

// template reads text with {param}, {query.name} and {header.name} in it. A parameter of the path must
// be one of the route's; the others are looked for in each request.
func (p *routeParser) template(n *yaml.Node, r *Route, text string) (template, error) {
	var out template
	for text != "" {
		literal, rest, found := strings.Cut(text, "{")
		if strings.Contains(literal, "}") {
			return nil, p.errorf(n, "there is a } without its {")
		}
		if literal != "" {
			out = append(out, piece{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, p.errorf(n, "there is a { without its }")
		}
		part := piece{from: fromPath, name: name}
		if query, ok := strings.CutPrefix(name, "query."); ok && query != "" {
			part = piece{from: fromQuery, name: query}
		} else if header, ok := strings.CutPrefix(name, "header."); ok && header != "" {
			part = piece{from: fromHeader, name: header}
		} else if !slices.Contains(r.params, name) {
			return nil, p.errorf(n, "{%s} is not a parameter of the path; others are {query.name} and {header.name}", name)
		}
		out, text = append(out, part), after
	}
	return out, nil
}

// insert puts a route into the tree and refuses one that matches what another does. Methods are
// compared one by one: GET and * of one path are two routes, of which GET goes first.
func (p *routeParser) insert(table *RouteTable, n *yaml.Node, r *Route, methods, segments []string) error {
	at, isRest := &table.root, false
	for _, segment := range segments {
		if isRest = strings.HasSuffix(segment, "...}"); isRest {
			break
		}
		next := at.literals[segment]
		if strings.HasPrefix(segment, "{") {
			next = at.param
		}
		if next == nil {
			next = &node{}
			if strings.HasPrefix(segment, "{") {
				at.param = next
			} else {
				if at.literals == nil {
					at.literals = map[string]*node{}
				}
				at.literals[segment] = next
			}
		}
		at = next
	}
	routes := &at.routes
	if isRest {
		routes = &at.rest
	}
	if *routes == nil {
		*routes = map[string]*Route{}
	}
	for _, m := range methods {
		if other := (*routes)[m]; other != nil {
			return p.errorf(n, "%s matches the same requests as %s in line %d", r.Pattern, other.Pattern, other.Line)
		}
		(*routes)[m] = r
	}
	return nil
}

// isName: a letter or underscore, then these and digits.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
