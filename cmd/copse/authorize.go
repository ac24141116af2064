package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// authorizeBody is api.AuthorizeRequest with the user's JSON left as it was written: copse compares integers
// of 64 bits, which a detour through floating point would change. A member that is left out is absent, which
// is not the same to the server as empty.
type authorizeBody struct {
	Action   api.AuthorizeAction       `json:"action"`
	Resource api.AuthorizeEntity       `json:"resource"`
	Context  map[string]jsontext.Value `json:"context,omitempty"`
	Entities map[string]jsontext.Value `json:"entities,omitempty"`
	Explain  bool                      `json:"explain,omitempty"`
}

// authorizeOptions are the flags, as they were given.
type authorizeOptions struct {
	token, action, resource, context, entities string
	explain                                    bool
}

// authorizeCommand reads and checks everything first, then asks once. A DENY is no error.
func (a *app) authorizeCommand() *cobra.Command {
	var opts authorizeOptions
	cmd := &cobra.Command{
		Use:   "authorize",
		Short: "Ask for a decision with a user's token",
		Long: `Ask what a service would be answered: may the user of this token do this action on this resource?

The token says who asks and for which tenant; nothing else can. The resource is given as Cedar writes
entities, Type::"id", in single quotes for the shell. What the policies need to know about it comes
with --entities, and about the circumstances with --context: a file, "-" for standard input, or the
JSON itself. Both are in Cedar's JSON format, or in AVP's when they are an object with the member
entityList or contextMap.

With an access key in COPSE_KEY that may decide on the policy store, the policies that determined the
answer are shown, and those that failed to evaluate; with --explain also what each part of the policies
came to: ✓ true, ✗ false, ! an error, · not evaluated, because it was settled before. DENY is an answer, and ends with exit code 0.`,
		Example: `  copse authorize --token "$(copse dev token --tenant acme --user alice)" \
      --action view --resource 'Invoice::"42"' \
      --context '{"mfa": true}' \
      --entities '[{"uid": {"type": "Invoice", "id": "42"}, "attrs": {"amount": 900}, "parents": []}]'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			question, err := opts.read(a)
			if err != nil {
				return err
			}
			return question.explain(a.authorize(cmd.Context(), question))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.token, "token", "", `the user's token, or "-" for standard input`)
	flags.StringVar(&opts.action, "action", "", `the action: an id such as view, or Type::"id"`)
	flags.StringVar(&opts.resource, "resource", "", `the resource: Type::"id"`)
	flags.StringVar(&opts.context, "context", "", "the request's context: JSON, or a file of it")
	flags.StringVar(&opts.entities, "entities", "", "the resource and what belongs to it: JSON, or a file of it")
	flags.BoolVar(&opts.explain, "explain", false, "show what each part of the policies came to; needs an access key")
	return cmd
}

// question is a request for a decision, with the texts its parts were read from. context and entities are
// nil where there is none.
type question struct {
	token             string
	body              authorizeBody
	context, entities *localData
}

// read makes the request out of the flags; nothing is asked yet. What is missing, or is none, is wrong
// usage; what is wrong in a file is a failure with findings.
func (o *authorizeOptions) read(a *app) (question, error) {
	var q question
	for _, f := range []struct{ name, value string }{{"token", o.token}, {"action", o.action}, {"resource", o.resource}} {
		if f.value == "" {
			return q, usagef("--%s is missing; `copse authorize --help` has an example", f.name)
		}
	}
	// A token that comes out of a file or another program ends with a line feed.
	q.token = strings.TrimSpace(o.token)
	if q.token == "-" {
		text, err := readFile("-", a.stdin)
		if err != nil {
			return q, failf("%w", err)
		}
		q.token = strings.TrimSpace(string(text))
	}
	// net/http would refuse such a header, and not name the flag.
	if strings.ContainsFunc(q.token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return q, usagef("--token has characters that no token has")
	}
	q.body.Explain = o.explain
	var err error
	if q.body.Action.Type, q.body.Action.ID, err = parseAction(o.action); err != nil {
		return q, err
	}
	if q.body.Resource.Type, q.body.Resource.ID, err = parseUID("resource", o.resource); err != nil {
		return q, err
	}
	// The last argument is the member by which an object is known to be in AVP's format.
	if q.context, err = a.readData("context", o.context, "contextMap"); err != nil {
		return q, err
	}
	if q.entities, err = a.readData("entities", o.entities, "entityList"); err != nil {
		return q, err
	}
	if q.context != nil {
		q.body.Context = q.context.members
	}
	if q.entities != nil {
		q.body.Entities = q.entities.members
	}
	return q, nil
}

// localData is JSON of the user's, and the member of the request that it becomes. text is as the user wrote
// it, for findings; members is what is sent.
type localData struct {
	file    string // or the flag that held it
	text    []byte
	members map[string]jsontext.Value
}

// readData reads a flag that holds JSON or names a file of it. An object whose only member is the one
// AVP wraps its format in is taken as AVP's, everything else as Cedar's. That travels as a string, so
// that positions in an answer are positions in the user's text.
func (a *app) readData(flag, value, avpMember string) (*localData, error) {
	if value == "" {
		return nil, nil
	}
	// What begins like an object or a list is taken for JSON; everything else names a file, or standard input.
	d := &localData{file: "--" + flag, text: []byte(value)}
	if start := strings.TrimSpace(value); start == "" || !strings.Contains("{[", start[:1]) {
		text, err := readFile(value, a.stdin)
		if err != nil {
			return nil, failf("--%s: %w", flag, err)
		}
		if d.file, d.text = value, text; value == "-" {
			d.file = stdinName
		}
	}
	// Whether it is JSON is known here, with a place; what it means is the server's to say.
	var parsed jsontext.Value
	if err := json.Unmarshal(d.text, &parsed); err != nil {
		return nil, &failure{code: exitError, message: "--" + flag + " is not JSON", findings: []finding{jsonFinding(d.file, d.text, err)}}
	}
	if parsed.Kind() == '{' && json.Unmarshal(parsed, &d.members) == nil && len(d.members) == 1 && d.members[avpMember] != nil {
		return d, nil
	}
	text, err := jsontext.AppendQuote(nil, d.text)
	if err != nil {
		return nil, failf("--%s: %w", flag, err)
	}
	d.members = map[string]jsontext.Value{"cedarJson": text}
	return d, nil
}

// explain shows the places in a server's answer in the user's JSON. Other errors, and none, come back as
// they are.
func (q *question) explain(err error) error {
	e, ok := errors.AsType[*apiError](err)
	if !ok || len(e.info.Fields) == 0 {
		return err
	}
	f := &failure{code: exitError, message: e.Error(), err: err}
	for _, field := range e.info.Fields {
		found := finding{File: field.Path, Line: field.Line, Column: field.Column, Message: field.Message}
		// The text went as one string, so a position in it is one in the user's own text.
		for path, d := range map[string]*localData{"context.cedarJson": q.context, "entities.cedarJson": q.entities} {
			if d != nil && strings.HasPrefix(field.Path, path) {
				found = newFinding(d.file, d.text, field.Line, field.Column, field.Message)
			}
		}
		f.findings = append(f.findings, found)
	}
	return f
}

// authorize asks at /v1/authorize and shows the answer. The user's token goes where the access key goes in
// other requests; the key, if there is one, opens no more than the detail of the answer, in a header of its
// own.
func (a *app) authorize(ctx context.Context, q question) error {
	c, err := a.anonymousClient("http://" + server.DefaultConfig().Listen)
	if err != nil {
		return err
	}
	// The server would refuse as well; here the variable to set can be named.
	if q.body.Explain && c.credential == "" {
		return usagef("--explain shows policies, and needs an access key that may decide on the policy store: set COPSE_KEY")
	}
	// It takes the place of the access key's.
	header := map[string]string{"Authorization": "Bearer " + q.token}
	if c.credential != "" {
		header["X-Copse-Key"] = c.credential
	}
	var out api.AuthorizeResponse
	if err := c.do(ctx, request{method: http.MethodPost, path: "/v1/authorize", header: header, in: q.body, out: &out}); err != nil {
		return err
	}
	return a.show(out, func(t *table) {
		t.pairs("decision", out.Decision, "reason", out.Reason, "tenant", out.Tenant,
			"policy store", out.PolicyStoreID, "revision", strconv.FormatUint(out.Revision, 10))
		if out.Considered == nil {
			return // the key, if any, may not see more
		}
		// How many policies' scopes matched; below are those that determined the answer.
		t.pairs("considered", policiesCount(*out.Considered))
		for _, p := range out.DeterminingPolicies {
			t.pairs("determined by", firstOf(p.PolicyName, p.PolicyID))
		}
		for _, e := range out.Errors {
			t.pairs("failed", firstOf(e.PolicyName, e.PolicyID)+": "+e.ErrorDescription)
		}
		if out.Explanation != nil {
			drawExplanation(t, out.Explanation, out.Reason)
		}
	})
}
