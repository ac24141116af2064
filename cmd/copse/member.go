package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// memberCommand administers what the token hook answers from. Changes hold for tokens that are issued
// afterwards; those there are stay what they are.
func (a *app) memberCommand() *cobra.Command {
	return group("member", "Say who is in which tenant, for the token hook",
		`A member is a person (issuer and subject), a machine (issuer and client id), or an invitation to an
e-mail address. The token hook puts a member's tenant, roles and attributes into their tokens;
docs/token-hook.md tells how.`,
		`  copse member add --tenant acme --issuer https://idp.example.com --subject alice --role clerk
  copse member add --tenant acme --email bob@example.com --role manager
  copse member import --tenant acme members.csv
  copse member list --tenant acme`,
		a.memberAdd(), a.memberList(), a.memberRemove(), a.memberImport(), a.memberActive())
}

// memberFlags name one member. Which of issuer, subject, client id and email belong together is the server's
// to say.
type memberFlags struct {
	tenant string
	ref    api.MemberRef
}

// add adds the flags to a command; --tenant has to be given. email says whether an invitation can be meant.
func (f *memberFlags) add(cmd *cobra.Command, email bool) {
	flags := cmd.Flags()
	flags.StringVar(&f.tenant, "tenant", "", "the tenant")
	flags.StringVar(&f.ref.Issuer, "issuer", "", "URL of the issuer whose subject or client it is")
	flags.StringVar(&f.ref.Subject, "subject", "", "the token's sub")
	flags.StringVar(&f.ref.ClientID, "client-id", "", "of a machine, instead of a subject")
	if email {
		flags.StringVar(&f.ref.Email, "email", "", "an invitation, instead of issuer and subject")
	}
	_ = cmd.MarkFlagRequired("tenant")
}

// path is that of what below the tenant. A tenant id that is none is wrong usage.
func (f *memberFlags) path(what string) (string, error) {
	path, err := tenantPath(f.tenant)
	return path + "/" + what, err
}

// memberAdd puts one member in place of what it was: roles and attributes that are not given are gone.
// It needs write for the tenant, as do remove and import.
func (a *app) memberAdd() *cobra.Command {
	var f memberFlags
	var roles, attributes []string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make somebody a member, or change their roles",
		Long: `Make somebody a member of a tenant, or replace their roles and attributes there. In force when the
command returns, for tokens issued afterwards.

With --email it is an invitation: whoever signs in with that address, verified, at an issuer that is
registered for its domain (issuer add --email-domain) becomes the member, once.`,
		Example: `  copse member add --tenant acme --issuer https://idp.example.com --subject alice --role clerk --attribute region=eu
  copse member add --tenant acme --email bob@example.com`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Roles and attributes are the whole of them: what is not named is taken away.
			in := api.MemberInput{MemberRef: f.ref, Roles: roles}
			for _, pair := range attributes {
				// The first =: a value may have more of them.
				name, value, ok := strings.Cut(pair, "=")
				if !ok {
					return usagef("--attribute %q is not name=value", pair)
				}
				if in.Attributes == nil {
					in.Attributes = map[string]string{}
				}
				in.Attributes[name] = value
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			failed, err := c.putMembers(cmd.Context(), f.tenant, []api.MemberInput{in})
			if err != nil {
				return err
			}
			// The call is a success that lists those that were not written: here there is at most one.
			for _, e := range failed {
				return failf("%s", memberProblem(&e.Error))
			}
			a.say("%s is a member of %s", nameOf(&f.ref), f.tenant)
			return nil
		},
	}
	f.add(cmd, true)
	cmd.Flags().StringArrayVar(&roles, "role", nil, "a role in the tenant; may be repeated")
	cmd.Flags().StringArrayVar(&attributes, "attribute", nil, "a further claim, name=value; may be repeated")
	return cmd
}

// nameOf is what a member is called in a message. The issuer is left out, so it is no key.
func nameOf(r *api.MemberRef) string {
	return firstOf(r.Subject, r.ClientID, r.Email)
}

// memberProblem is why one member of a call was not written, in one line.
func memberProblem(e *api.ErrorInfo) string {
	text := e.Message
	for _, field := range e.Fields {
		text += "; " + field.Path + ": " + field.Message
	}
	return text
}

// putMembers writes up to 500 members, each for itself: the list has those that were not written, by index.
// With an error it is not known which were; the same call again does no harm.
func (c *client) putMembers(ctx context.Context, tenant string, members []api.MemberInput) ([]api.MemberError, error) {
	path, err := tenantPath(tenant)
	if err != nil {
		return nil, err
	}
	var out api.PutMembersAnswer
	err = c.do(ctx, request{method: http.MethodPut, path: path + "/members", in: api.PutMembersRequest{Members: members}, out: &out})
	return out.Errors, err
}

// memberList reads all pages before it shows the first. It needs read for the tenant.
func (a *app) memberList() *cobra.Command {
	var f memberFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List a tenant's members and invitations",
		Long:    `List a tenant's members and invitations.`,
		Example: `  copse member list --tenant acme`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := f.path("members")
			if err != nil {
				return err
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			all := api.MemberList{Members: []api.Member{}}
			err = follow(func(query url.Values) (string, error) {
				var page api.MemberList
				err := c.do(cmd.Context(), request{method: http.MethodGet, path: path, query: query, out: &page})
				all.Members = append(all.Members, page.Members...)
				return page.NextToken, err
			})
			if err != nil {
				return err
			}
			return a.show(all, func(t *table) {
				t.row("MEMBER", "KIND", "ISSUER", "ROLES", "ATTRIBUTES", "SINCE")
				for _, m := range all.Members {
					// An invitation has neither subject nor client id.
					kind := map[bool]string{true: "person", false: "machine"}[m.ClientID == ""]
					if m.Email != "" {
						kind = "invited"
					}
					var attributes []string
					// In one order, so that two lists can be compared.
					for _, name := range slices.Sorted(maps.Keys(m.Attributes)) {
						attributes = append(attributes, name+"="+m.Attributes[name])
					}
					t.row(nameOf(&m.MemberRef), kind, m.Issuer, listed(m.Roles), listed(attributes), when(m.Since))
				}
			})
		},
	}
	cmd.Flags().StringVar(&f.tenant, "tenant", "", "the tenant")
	_ = cmd.MarkFlagRequired("tenant")
	return cmd
}

// memberRemove sends what names the member in the query, where a subject may hold anything.
func (a *app) memberRemove() *cobra.Command {
	var f memberFlags
	cmd := &cobra.Command{
		Use:     "remove",
		Short:   "End a membership, or withdraw an invitation",
		Long:    `End a membership, or withdraw an invitation. Tokens issued before live until they expire.`,
		Example: `  copse member remove --tenant acme --issuer https://idp.example.com --subject alice`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// One member has no path of its own: its name may hold anything, and is in the query.
			path, err := f.path("member")
			if err != nil {
				return err
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			// What is empty is left out: the server takes a member's name by what is there.
			query := url.Values{}
			for name, value := range map[string]string{"issuer": f.ref.Issuer, "subject": f.ref.Subject, "clientId": f.ref.ClientID, "email": f.ref.Email} {
				if value != "" {
					query.Set(name, value)
				}
			}
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: path, query: query}); err != nil {
				return err
			}
			a.say("%s is no member of %s any more", nameOf(&f.ref), f.tenant)
			return nil
		},
	}
	f.add(cmd, true)
	return cmd
}

// memberActive changes which tenant the next token is for, and touches no membership. It needs a key with
// admin everywhere: the tenants of a member are no single tenant's to choose among.
func (a *app) memberActive() *cobra.Command {
	var f memberFlags
	var client string
	cmd := &cobra.Command{
		Use:   "active",
		Short: "Change which tenant a member's tokens are for",
		Long: `Change which of their tenants a member's next tokens are for. Members change it themselves with their
own token (PUT /v1/me/tenant); this is for the operator. It needs admin, everywhere.`,
		Example: `  copse member active --tenant globex --issuer https://idp.example.com --subject alice --client web`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			err = c.do(cmd.Context(), request{method: http.MethodPut, path: "/v1/members/active",
				in: api.SetActiveRequest{MemberRef: f.ref, Client: client, Tenant: f.tenant}})
			if err != nil {
				return err
			}
			a.say("the next tokens of %s are for %s", nameOf(&f.ref), f.tenant)
			return nil
		},
	}
	f.add(cmd, false)
	cmd.Flags().StringVar(&client, "client", "", "at this client only (default: at all that have no choice of their own)")
	return cmd
}

// memberImport may be interrupted and run again: what it has written it writes once more, to no effect.
func (a *app) memberImport() *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make many members, from CSV or JSON lines",
		Long: `Make many members of a tenant, as "member add" does, 500 at a time. The file is CSV with a header of
issuer, subject, client_id, email, roles (separated by spaces) and attribute.NAME, of which those that
are needed; or, when it begins with a brace, one JSON object a line in the form of the API's members.
"-" is standard input.

Lines that are refused are named, the others are done; the exit code is then 1. Importing a file
again changes nothing.`,
		Example: `  copse member import --tenant acme members.csv`,
		Args:    args(1, 1, "one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.openInput(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			c, err := a.newClient()
			if err != nil {
				return err
			}
			return a.importMembers(cmd.Context(), c, tenant, args[0], in)
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the tenant")
	_ = cmd.MarkFlagRequired("tenant")
	return cmd
}

// openInput opens a file, or standard input for "-". Closing it leaves standard input open.
func (a *app) openInput(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, failf("%w", err)
	}
	return f, nil
}

// importBatch is the most members that one call of the API takes.
const importBatch = 500

// importMembers writes members in calls of [importBatch]. What is wrong with one line stops no other: it is
// told with the line's number, and counted for the error at the end. A line that can't be read ends it,
// after the lines before. Memory is that of one batch, whatever the size of the file.
func (a *app) importMembers(ctx context.Context, c *client, tenant, name string, in io.Reader) error {
	next, err := memberReader(in)
	if err != nil {
		return failf("%s: %w", name, err)
	}
	done, refused := 0, 0
	var batch []api.MemberInput
	// lines[i] is where batch[i] was read from.
	var lines []int
	flush := func() error {
		// The last batch was full, or there were no members at all.
		if len(batch) == 0 {
			return nil
		}
		// A whole call that failed ends the import: its cause would be the same for the next.
		failed, err := c.putMembers(ctx, tenant, batch)
		if err != nil {
			return err
		}
		for _, e := range failed {
			// One line each, as compilers write, beside the file's name: thousands of them can be worked
			// through.
			fmt.Fprintf(a.stderr, "%s:%d: %s\n", name, lines[e.Index], oneLine(memberProblem(&e.Error)))
		}
		done, refused = done+len(batch)-len(failed), refused+len(failed)
		// The memory is used again: putMembers has returned, and keeps nothing of it.
		batch, lines = batch[:0], lines[:0]
		a.say("%s", count(done, "member"))
		return nil
	}
	for {
		m, line, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// The lines before it are a batch that is not full yet.
			return errors.Join(failf("%s:%d: %w; the lines before it were done", name, line, err), flush())
		}
		if batch, lines = append(batch, m), append(lines, line); len(batch) == importBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if refused > 0 {
		return failf("%s: %s refused", name, count(refused, "line"))
	}
	return nil
}

// memberReader reads either form, one member and its line at a time: io.EOF after the last. The first byte
// tells the form, no header of a CSV file begins with a brace. Empty lines of JSON are skipped.
func memberReader(in io.Reader) (func() (api.MemberInput, int, error), error) {
	buffered := bufio.NewReader(in)
	// Peek leaves the byte to be read again.
	first, err := buffered.Peek(1)
	if err != nil {
		return nil, errors.New("it is empty")
	}
	if first[0] == '{' {
		line := 0
		// Lines are read one at a time, however long the file is.
		scan := bufio.NewScanner(buffered)
		// A line is at most 1 MB; a longer one is an error and not cut.
		scan.Buffer(nil, 1<<20)
		return func() (m api.MemberInput, at int, err error) {
			for scan.Scan() {
				if line++; strings.TrimSpace(scan.Text()) != "" {
					// A misspelt member must not be one that was left out.
					return m, line, json.Unmarshal(scan.Bytes(), &m, json.RejectUnknownMembers(true))
				}
			}
			// Scan ends at the end of the file and at an error alike.
			if scan.Err() != nil {
				return m, line, scan.Err()
			}
			return m, line, io.EOF
		}, nil
	}
	return csvMembers(buffered)
}

// csvMembers reads the header at once, since a column that is misspelt would be left out of every member.
// Columns may be in any order; a value that is empty is none.
func csvMembers(in io.Reader) (func() (api.MemberInput, int, error), error) {
	r := csv.NewReader(in)
	header, err := r.Read()
	if err != nil {
		return nil, err
	}
	for _, name := range header {
		if !slices.Contains([]string{"issuer", "subject", "client_id", "email", "roles"}, name) && !strings.HasPrefix(name, "attribute.") {
			return nil, fmt.Errorf("line 1: there is no column %q: use issuer, subject, client_id, email, roles and attribute.NAME", name)
		}
	}
	return func() (m api.MemberInput, line int, err error) {
		record, err := r.Read()
		if broken, ok := errors.AsType[*csv.ParseError](err); ok {
			return m, broken.Line, broken.Err
		}
		if err != nil {
			return m, 0, err
		}
		line, _ = r.FieldPos(0) // only of a record that was read: it panics otherwise
		// encoding/csv refuses a line that has another number of fields than the header.
		for i, value := range record {
			switch name := header[i]; name {
			case "issuer":
				m.Issuer = value
			case "subject":
				m.Subject = value
			case "client_id":
				m.ClientID = value
			case "email":
				m.Email = value
			case "roles":
				m.Roles = strings.Fields(value)
			default:
				// An empty cell sets no attribute: not every member has every column.
				if value != "" {
					if m.Attributes == nil {
						m.Attributes = map[string]string{}
					}
					m.Attributes[strings.TrimPrefix(name, "attribute.")] = value
				}
			}
		}
		return m, line, nil
	}, nil
}
