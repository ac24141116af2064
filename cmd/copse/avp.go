package main

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/remote"
)

const awsSide = `The AWS side is named as AWS's own tools have it: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN, AWS_REGION, and AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS when it is not AWS itself but,
say, another copse. Of a profile, "aws configure export-credentials --format env" prints them.`

// importCommand and [app.exportCommand] are groups of one: there may be other forms beside AVP's.
func (a *app) importCommand() *cobra.Command {
	return group("import", "Bring a policy store in", "Make a new policy store of what is elsewhere.",
		"  copse import avp --from-aws PSEXAMPLEabcdefg111111", a.importAVP())
}

func (a *app) exportCommand() *cobra.Command {
	return group("export", "Take a policy store out", "Copy a policy store to a directory or to Amazon Verified Permissions.",
		"  copse export avp C7v5xMplfFH3i3e4Jrzb1a --to-dir shop", a.exportAVP())
}

// importAVP makes a new policy store and changes none that is there. What each side is asked with is known
// before that side is asked.
func (a *app) importAVP() *cobra.Command {
	var fromAWS, fromDir string
	var aliases bool
	cmd := &cobra.Command{
		Use:   "avp",
		Short: "From Amazon Verified Permissions, or a directory",
		Long: `Make a new policy store in copse, of one in Amazon Verified Permissions or of a directory that "copse
export avp" wrote: schema, templates, policies and links, identity source, tags, settings. It belongs
to no tenant until "copse tenant create --policy-store" gives it to one.

Policies are carried as they are, also those that the schema would refuse by now. Everything is made
or nothing. What can't be carried is listed: ids are new, and a name can be on one side only once.

` + awsSide,
		Example: `  copse import avp --from-aws PSEXAMPLEabcdefg111111
  copse import avp --from-dir shop --aliases`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Neither, or both.
			if (fromAWS == "") == (fromDir == "") {
				return usagef("from where? give --from-aws POLICY_STORE_ID or --from-dir DIRECTORY")
			}
			to, err := a.ownSide()
			if err != nil {
				return err
			}
			// All of it is read before anything is made: a source that fails leaves nothing behind.
			contents, notes, err := a.contentsFrom(cmd.Context(), fromAWS, fromDir)
			if err != nil {
				return moveFailed(err)
			}
			return a.moveTo(cmd.Context(), to, contents, notes, aliases)
		},
	}
	cmd.Flags().StringVar(&fromAWS, "from-aws", "", "id or alias of a policy store on the AWS side")
	cmd.Flags().StringVar(&fromDir, "from-dir", "", "directory that an export wrote")
	cmd.Flags().BoolVar(&aliases, "aliases", false, "make its aliases too")
	return cmd
}

// exportAVP reads through the AVP API, which is no snapshot: see [remote.Client.Export].
func (a *app) exportAVP() *cobra.Command {
	var toDir string
	var toAWS, aliases bool
	cmd := &cobra.Command{
		Use:   "avp POLICY_STORE_ID",
		Short: "To a directory, or to Amazon Verified Permissions",
		Long: `Copy a policy store of copse, named by id or alias, through the API of Amazon Verified Permissions: to
a directory, with each policy in a .cedar file, or straight into a new policy store on the AWS side.
The policy store here stays as it is.

` + awsSide,
		Example: `  copse export avp C7v5xMplfFH3i3e4Jrzb1a --to-dir shop
  copse export avp policy-store-alias/shop --to-aws`,
		Args: args(1, 1, "the id or alias of a policy store"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Neither, or both.
			if (toDir == "") == !toAWS {
				return usagef("where to? give --to-dir DIRECTORY or --to-aws")
			}
			if aliases && !toAWS {
				return usagef("--aliases goes with --to-aws: a directory has them in any case")
			}
			from, err := a.ownSide()
			if err != nil {
				return err
			}
			// Before anything is read: credentials that are missing are missing from the start.
			var to *remote.Client
			if toAWS {
				if to, err = a.awsSide(); err != nil {
					return err
				}
			}
			contents, report, err := from.Export(cmd.Context(), args[0])
			if err != nil {
				return moveFailed(err)
			}
			if toAWS {
				return a.moveTo(cmd.Context(), to, contents, report.Notes, aliases)
			}
			// A directory is made, or is there and empty: nothing that is there is written over.
			if err := remote.WriteDir(toDir, contents); err != nil {
				return moveFailed(err)
			}
			return a.showMoved(moved{Directory: toDir, Notes: report.Notes}, contents)
		},
	}
	cmd.Flags().StringVar(&toDir, "to-dir", "", "directory to write, new or empty")
	cmd.Flags().BoolVar(&toAWS, "to-aws", false, "make a policy store on the AWS side")
	cmd.Flags().BoolVar(&aliases, "aliases", false, "with --to-aws: make its aliases too")
	return cmd
}

// ownSide is the copse that the other commands speak to, by its AVP API, for which the same key signs. Its
// client has no timeout over a whole move, and like the other follows no redirect. A credential that is no
// access key can sign nothing, and is wrong usage.
func (a *app) ownSide() (*remote.Client, error) {
	c, err := a.newClient()
	if err != nil {
		return nil, err
	}
	// The AVP API wants a signature, for which the two parts are needed.
	id, secret, ok := access.ParseBearer(c.credential)
	if !ok {
		return nil, usagef("COPSE_KEY is not an access key, which looks like copse_<id>_<secret>")
	}
	return newRemote(remote.Options{Endpoint: c.base, AccessKeyID: id, SecretAccessKey: secret, HTTPClient: &http.Client{CheckRedirect: c.http.CheckRedirect, Transport: c.http.Transport}})
}

// awsSide is the other side, by the variables that AWS's own tools read. Neither files of credentials nor
// profiles are read. With an endpoint of its own the region may be left out. What is missing is wrong usage:
// nothing has been asked.
func (a *app) awsSide() (*remote.Client, error) {
	o := remote.Options{
		Endpoint:    firstOf(a.env("AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS"), a.env("AWS_ENDPOINT_URL")),
		Region:      firstOf(a.env("AWS_REGION"), a.env("AWS_DEFAULT_REGION")),
		AccessKeyID: a.env("AWS_ACCESS_KEY_ID"), SecretAccessKey: a.env("AWS_SECRET_ACCESS_KEY"), SessionToken: a.env("AWS_SESSION_TOKEN"),
	}
	switch {
	case o.AccessKeyID == "" || o.SecretAccessKey == "":
		return nil, usagef("no credentials for the AWS side: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case o.Region == "" && o.Endpoint == "":
		return nil, usagef("which region? set AWS_REGION")
	}
	return newRemote(o)
}

// newRemote makes a client; options that none can be made of are wrong usage.
func newRemote(o remote.Options) (*remote.Client, error) {
	c, err := remote.New(o)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// contentsFrom reads what is to be imported, from the one of the two that is named. A directory has nothing
// to note: what could not be carried was noted when it was written.
func (a *app) contentsFrom(ctx context.Context, fromAWS, fromDir string) (*remote.Contents, []remote.Note, error) {
	if fromDir != "" {
		contents, err := remote.ReadDir(fromDir)
		return contents, nil, err
	}
	from, err := a.awsSide()
	if err != nil {
		return nil, nil, err
	}
	contents, report, err := from.Export(ctx, fromAWS)
	if err != nil {
		return nil, nil, err
	}
	return contents, report.Notes, nil
}

// moveTo makes the policy store on the other side, whole or not at all, and shows what came of it. notes are of
// reading, and are shown with those of writing.
func (a *app) moveTo(ctx context.Context, to *remote.Client, contents *remote.Contents, notes []remote.Note, aliases bool) error {
	id, report, err := to.Import(ctx, contents, remote.ImportOptions{Aliases: aliases})
	if err != nil {
		return moveFailed(err)
	}
	return a.showMoved(moved{PolicyStoreID: id, Notes: append(notes, report.Notes...), NewIDs: report.NewIDs}, contents)
}

// moved is what is shown of a move, to a policy store or to a directory. One of PolicyStoreID and Directory
// is set. Notes says what is not as it was; NewIDs maps former ids to those on the other side.
type moved struct {
	PolicyStoreID string            `json:"policyStoreId,omitzero"`
	Directory     string            `json:"directory,omitzero"`
	Notes         []remote.Note     `json:"notes"`
	NewIDs        map[string]string `json:"newIds,omitzero"`
}

// showMoved tells what was moved, and in a table what is not as it was. As JSON it has the new ids as well.
func (a *app) showMoved(m moved, contents *remote.Contents) error {
	if a.output == "json" {
		return a.show(m, nil)
	}
	what := m.Directory
	if m.PolicyStoreID != "" {
		what = "policy store " + m.PolicyStoreID
	}
	a.say("%s has %d policies and links, %d templates", what, len(contents.Policies), len(contents.Templates))
	// All is as it was: there is no table to draw.
	if len(m.Notes) == 0 {
		return nil
	}
	return a.show(nil, func(t *table) {
		t.row("NOT AS IT WAS", "WHICH", "WHY")
		for _, n := range m.Notes {
			t.row(n.What, n.ID, n.Why)
		}
	})
}

// moveFailed shows the findings about a policy below what was tried. What is a failure already, such as
// wrong usage, stays one.
func moveFailed(err error) error {
	// Wrong usage on the way, such as missing credentials.
	f, isFailure := errors.AsType[*failure](err)
	if isFailure {
		return f
	}
	out := &failure{code: exitError, message: err.Error(), err: err}
	if e, ok := errors.AsType[*copse.Error](err); ok && len(e.Fields) > 0 {
		// AVP's words for any invalid input add nothing where the findings say which.
		out.message = strings.TrimSuffix(e.Detail, ": Invalid input")
		for _, field := range e.Fields {
			out.findings = append(out.findings, finding{File: field.Path, Message: field.Message})
		}
	}
	return out
}
