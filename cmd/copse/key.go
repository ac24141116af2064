package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// keyCommand has five commands that ask a server, and two about master keys that work on the directory of a
// server that does not run.
func (a *app) keyCommand() *cobra.Command {
	return group("key", "Make, list, rotate and revoke access keys",
		`An access key is what a service or a person shows to copse. It covers everything, or the policy
store of one tenant, or one policy store, and says what may be done there: read, write, decide, and
(for a key that covers everything) admin, which is for tenants, issuers and keys. What a key does not
cover does not exist for it.

One key serves both ways of calling: as a bearer credential copse_<id>_<secret>, and as AWS access key
id and secret for the SDKs.`,
		`  copse key create --scope tenant:acme --allow read,write --description "acme's CI"
  copse key list`,
		a.keyCreate(), a.keyList(), a.keyRotate(), a.keyExpire(), a.keyRevoke(), a.keyRotateMaster(), a.keyResetMaster())
}

// verbs are those of access keys, in the order of the help.
func verbs() []string { return []string{"read", "write", "decide", "admin"} }

// keyCreate has the server draw id and secret. Scope and verbs are looked at here first, because the answer
// can name the flag and what it takes. Like all commands about keys but the two about master keys, it needs
// a key with the scope all and the verb admin.
func (a *app) keyCreate() *cobra.Command {
	var in api.CreateKeyRequest
	var scope string
	var expires time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an access key",
		Long: `Make an access key. Its secret is printed once and can't be read again.

--scope is all, tenant:ID or policy-store:ID. --allow is one or more of read, write, decide and admin;
admin needs the scope all.`,
		Example: `  # a service that asks for decisions of one tenant, for a month
  copse key create --scope tenant:acme --allow decide --expires 720h

  # into a variable
  COPSE_KEY=$(copse key create --scope all --allow read --output json | jq -r .credential)`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if in.Scope, err = parseScope(scope); err != nil {
				return err
			}
			// Verbs that are given twice are sent once.
			if in.Verbs, err = parseVerbs(in.Verbs); err != nil {
				return err
			}
			// 0 is a mistake where it was given, and no expiry where it was not.
			if cmd.Flags().Changed("expires") {
				if expires <= 0 {
					return usagef("--expires must lie ahead, such as 720h")
				}
				// By this machine's clock, which may be off from the server's.
				in.ExpiresAt = time.Now().Add(expires).UTC().Truncate(time.Microsecond)
			}
			return explainFlags(cmd.Flags(), a.createKey(cmd.Context(), in))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&scope, "scope", "", "what it covers: all, tenant:ID or policy-store:ID")
	flags.StringSliceVar(&in.Verbs, "allow", nil, "what it may do there: read,write,decide,admin")
	flags.DurationVar(&expires, "expires", 0, "how long it is good for, such as 720h (default: until it is revoked)")
	flags.StringVar(&in.Description, "description", "", "what it is for")
	_ = cmd.RegisterFlagCompletionFunc("allow", cobra.FixedCompletions(verbs(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// parseScope reads all, tenant:ID or policy-store:ID; anything else is wrong usage. There is no default: a
// key for everything is never made by leaving something out.
func parseScope(s string) (api.KeyScope, error) {
	// A tenant's id may hold colons: only the first one ends the kind.
	kind, id, _ := strings.Cut(s, ":")
	switch {
	case s == "all":
		return api.KeyScope{All: true}, nil
	// Validated here, so that a slip of the pen is not a key that covers nothing.
	case kind == "tenant":
		if err := copse.TenantID(id).Validate(); err != nil {
			return api.KeyScope{}, usagef("--scope: %v", err)
		}
		return api.KeyScope{Tenant: id}, nil
	case kind == "policy-store":
		if err := copse.PolicyStoreID(id).Validate(); err != nil {
			return api.KeyScope{}, usagef("--scope: %v", err)
		}
		return api.KeyScope{PolicyStoreID: id}, nil
	}
	return api.KeyScope{}, usagef("--scope %q: what shall the key cover? all, tenant:ID or policy-store:ID", s)
}

// parseVerbs refuses verbs that are none, and an empty list; a verb given twice counts once.
func parseVerbs(given []string) ([]string, error) {
	var out []string
	for _, v := range given {
		if !slices.Contains(verbs(), v) {
			return nil, usagef("--allow %q: it is one or more of %s", v, listed(verbs()))
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, usagef("what may the key do? give --allow with one or more of %s", listed(verbs()))
	}
	return out, nil
}

// createKey makes the key and shows it with its secret, on standard output only.
func (a *app) createKey(ctx context.Context, in api.CreateKeyRequest) error {
	c, err := a.newClient()
	if err != nil {
		return err
	}
	var out api.CreatedKey
	if err := c.do(ctx, request{method: http.MethodPost, path: "/v1/keys", in: in, out: &out}); err != nil {
		return err
	}
	err = a.show(out, func(t *table) { t.pairs(createdPairs(&out)...) })
	if err != nil {
		return err
	}
	a.say("the secret is not shown again")
	return nil
}

// createdPairs has the key in both forms of use: as bearer credential, and as the pair that AWS's tools
// take. It holds the secret.
func createdPairs(k *api.CreatedKey) []string {
	return []string{"key", k.ID, "covers", scopeOf(k.Scope), "may", listed(k.Verbs), "expires", firstOf(when(k.ExpiresAt), "never"),
		"COPSE_KEY", k.Credential, "AWS_ACCESS_KEY_ID", k.ID, "AWS_SECRET_ACCESS_KEY", k.Secret}
}

// scopeOf is parseScope backwards.
func scopeOf(s api.KeyScope) string {
	switch {
	case s.All:
		return "all"
	case s.Tenant != "":
		return "tenant:" + s.Tenant
	}
	return "policy-store:" + s.PolicyStoreID
}

// keyList shows when each was last used, by which one finds those that nobody uses.
func (a *app) keyList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the access keys, without their secrets",
		Long:  `List the access keys: what each covers, what it may do, until when, and when it last opened anything. Secrets can't be listed. The root key is not stored, and not listed.`,
		Example: `  copse key list

  # those that never expire
  copse key list --output json | jq -r '.keys[] | select(.expiresAt == null).id'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			all, err := c.keys(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(all, func(t *table) {
				t.row("KEY", "COVERS", "MAY", "EXPIRES", "LAST USED", "CREATED", "DESCRIPTION")
				for _, k := range all.Keys {
					t.row(k.ID, scopeOf(k.Scope), listed(k.Verbs), firstOf(when(k.ExpiresAt), "never"), firstOf(when(k.LastUsedAt), "never"), when(k.CreatedAt), k.Description)
				}
			})
		},
	}
}

// keyRevoke takes the id as it is given and does not look first whether there is such a key: the server says
// so.
func (a *app) keyRevoke() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke an access key",
		Long:  `Revoke an access key. Whoever shows it after this command has answered is refused.`,
		Example: `  copse key list
  copse key revoke K7dQ2v9wYixMplbbZQb5fc`,
		Args: args(1, 1, "the key's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.keyClient(args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Revoke access key "+args[0]+"?"); err != nil {
				return err
			}
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: "/v1/keys/" + url.PathEscape(args[0])}); err != nil {
				return err
			}
			a.say("access key %s is revoked", args[0])
			return nil
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}

// keyClient keeps a secret that was pasted whole from being sent, and logged, as part of a path.
// It is wrong usage, and nothing is sent.
func (a *app) keyClient(id string) (*client, error) {
	if strings.HasPrefix(id, "copse_") {
		return nil, usagef("give the key's id, the part between copse_ and the secret")
	}
	return a.newClient()
}

// keyRotate leaves both keys good for the overlap, so that those who use the old one can change over one by
// one.
func (a *app) keyRotate() *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Replace an access key, with time to change over",
		Long: `Replace an access key: makes one that covers and may do the same, and lets the old one expire after
--overlap. The new secret is printed once. A key that was made to expire is replaced by one of the same
life. The list of keys shows when the old one was last used: nobody uses it any more, revoke it.`,
		Example: `  copse key rotate CPKAAAAAAAAAAAAAAAAA --overlap 24h`,
		Args:    args(1, 1, "the key's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// The API has whole seconds, and a fraction that was dropped in silence would end a key too early.
			if overlap < 0 || overlap%time.Second != 0 {
				return usagef("--overlap is in whole seconds, such as 24h; 0s ends the old key at once")
			}
			c, err := a.keyClient(args[0])
			if err != nil {
				return err
			}
			// Expiry and description of the new key are the server's to make of the old one's.
			in := api.RotateKeyRequest{OverlapSeconds: int64(overlap / time.Second)}
			var out api.RotatedKey
			if err := c.do(cmd.Context(), request{method: http.MethodPost, path: "/v1/keys/" + url.PathEscape(args[0]) + "/rotate", in: in, out: &out}); err != nil {
				return err
			}
			err = a.show(out, func(t *table) {
				t.pairs(append(createdPairs(&out.CreatedKey), "replaces", out.Replaces.ID, "which expires", when(out.Replaces.ExpiresAt))...)
			})
			if err != nil {
				return err
			}
			a.say("the secret is not shown again")
			return nil
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key stays good, at most 720h")
	return cmd
}

// keyExpire replaces the expiry. The time is this machine's plus the duration, in whole seconds.
func (a *app) keyExpire() *cobra.Command {
	var in time.Duration
	var never bool
	cmd := &cobra.Command{
		Use:   "expire ID",
		Short: "Change when an access key expires",
		Long:  `Change when an access key expires: it is refused from that moment on. A key that has expired stays so; to end one now, revoke it.`,
		Example: `  # in a week
  copse key expire CPKAAAAAAAAAAAAAAAAA --in 168h

  # not at all
  copse key expire CPKAAAAAAAAAAAAAAAAA --never`,
		Args: args(1, 1, "the key's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Neither, or both.
			if never == (in > 0) {
				return usagef("when shall it expire? give --in with a duration such as 168h, or --never")
			}
			c, err := a.keyClient(args[0])
			if err != nil {
				return err
			}
			// One of the two members is given, as the API wants it.
			expiry := api.KeyExpiry{Never: never}
			if !never {
				expiry.ExpiresAt = time.Now().Add(in).UTC().Truncate(time.Second)
			}
			var out api.Key
			if err := c.do(cmd.Context(), request{method: http.MethodPut, path: "/v1/keys/" + url.PathEscape(args[0]) + "/expiry", in: expiry, out: &out}); err != nil {
				return err
			}
			return a.show(out, func(t *table) {
				t.pairs("key", out.ID, "covers", scopeOf(out.Scope), "may", listed(out.Verbs), "expires", firstOf(when(out.ExpiresAt), "never"))
			})
		},
	}
	cmd.Flags().DurationVar(&in, "in", 0, "how long it is good for from now, such as 168h")
	cmd.Flags().BoolVar(&never, "never", false, "it does not expire")
	return cmd
}

// keyRotateMaster works on the files of a server that does not run; [server.RotateMasterKey] locks them.
func (a *app) keyRotateMaster() *cobra.Command {
	var data, file, to string
	cmd := &cobra.Command{
		Use:   "rotate-master --data DIR",
		Short: "Replace the master key of a data directory",
		Long: `Replace the master key that access keys, and the server's own keys, are sealed under. The server must be
stopped: it holds the key in memory, and has to start again with the new one anyway. Access keys stay as
they are for those who use them.

Without --to, DIR/master.key (or the file that --master-key-file names) is replaced by a new key, and the
former one is kept beside it for backups that were made before. With --to, the new key is read from that
file, or made there; then name that file to the server.

When it is killed at any point, run it again with the same flags. Until it has finished, the server does
not start.`,
		Example: `  copse key rotate-master --data /var/lib/copse

  # keys that are kept elsewhere
  copse key rotate-master --data /var/lib/copse --master-key-file /etc/copse/master-1 --to /etc/copse/master-2`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usagef("which data directory? give --data DIR, of a server that does not run")
			}
			done, err := server.RotateMasterKey(cmd.Context(), data, file, to)
			if err != nil {
				return startFailure(err)
			}
			// Which files they are is all that is shown; no key is.
			if err := a.show(done, func(t *table) {
				t.pairs("sealed anew", count(done.Resealed, "row"), "master key", done.File, "former key", done.Former)
			}); err != nil {
				return err
			}
			a.say("the former key is not needed for this data directory any more, only for backups that were made before")
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	cmd.Flags().StringVar(&file, "master-key-file", "", "file of the key in use (default DIR/master.key)")
	cmd.Flags().StringVar(&to, "to", "", "file of the new key, made when it is absent (default: it takes the place of the former)")
	return cmd
}

// keyResetMaster asks once it is known what would go, and before any of it does. What was begun can be run
// again.
func (a *app) keyResetMaster() *cobra.Command {
	var data, file string
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset-master --data DIR",
		Short: "Go on without a master key that is lost",
		Long: `Go on without a master key of which no copy is left. What is sealed under it can't be opened by anybody, and
no server starts while it is there: this drops it. Access keys have to be made again; the keys that sign
contexts and the decision log are made anew by the next start. Tenants, policy stores, policies and the
records of the past stay.

What the key in --master-key-file (or DIR/master.key, which may be absent) does open stays too, so a
single damaged row can be dropped as well. The server must be stopped. Make a backup first: what is dropped
can't be brought back should the key turn up.`,
		Example: `  copse backup --data /var/lib/copse before-reset.backup
  copse key reset-master --data /var/lib/copse`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usagef("which data directory? give --data DIR, of a server that does not run")
			}
			// How much would go is said in the question.
			goAhead := func(n access.Sealed) error {
				return a.confirm(yes, fmt.Sprintf("Drop %s and %s that the master key does not open?", count(n.Keys, "access key"), count(n.Secrets, "server secret")))
			}
			// Progress for large directories only, and not for each row.
			const step = 1000
			dropped, err := server.ResetMasterKey(cmd.Context(), data, file, goAhead, func(n int) {
				if n%step == 0 {
					a.say("%d rows dropped", n)
				}
			})
			// A person's no, or that nobody could be asked: a failure with its own code already.
			if _, asked := errors.AsType[*failure](err); asked {
				return err
			}
			if err != nil {
				return startFailure(err)
			}
			if err := a.show(dropped, func(t *table) {
				t.pairs("access keys dropped", strconv.Itoa(dropped.Keys), "server secrets dropped", strconv.Itoa(dropped.Secrets))
			}); err != nil {
				return err
			}
			a.say("start the server, which makes a master key if none is named, and make the access keys again with the root key")
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	cmd.Flags().StringVar(&file, "master-key-file", "", "file of a key that opens some of it (default DIR/master.key, if there is one)")
	yesFlag(cmd, &yes)
	return cmd
}
