package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/dev"
	"github.com/copse-authz/copse/internal/server"
)

// devListen is where `copse dev` listens unless told otherwise, and where `copse dev token` looks.
const devListen = "127.0.0.1:8180"

const devLong = `Run copse on this machine to try it: three sample tenants whose schemas differ, a development token
issuer for every tenant name and a shared one, and requests with real tokens, ready to paste, each
with the answer it must give.

Everything is in a temporary directory that goes away with it, unless --data keeps it. It listens on
loopback only, and trusts issuers that hand a token to anybody who asks: never use it for real. That is
what "copse serve" is for, which contains none of this.

--tour asks all those requests itself, prints what was expected and what came, and ends; with code 1 if
an answer differs.`

const devExample = `  copse dev

  # ask everything once, and end
  copse dev --tour

  # keep the data, on any free port
  copse dev --data ./copse-data --listen 127.0.0.1:0`

// devCommand has few of the flags of `copse serve`, and listens on loopback only, whatever it is told.
func (a *app) devCommand() *cobra.Command {
	var dir, listen string
	var tour bool
	var logLevel string
	cmd := &cobra.Command{
		Use:     "dev",
		Short:   "Run a server to try things on, with sample tenants",
		Long:    devLong,
		Example: devExample,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				return unknownCommand(cmd, given[0])
			}
			logger, err := a.logger(logLevel, "text")
			if err != nil {
				return err
			}
			// Before anything is made: a server that hands out tokens must not be reachable for a moment.
			if !onThisMachine(listen) {
				return usagef("--listen %s: copse dev listens on this machine only, such as on %s, because its issuers hand a token to anybody who asks", listen, devListen)
			}
			cfg := server.DefaultConfig()
			// Metrics on a free port, so that a second one beside this can run.
			cfg.DataDir, cfg.Listen, cfg.OpsListen = dir, listen, "127.0.0.1:0"
			cfg.Log, cfg.Version = logger, readVersion().Version
			return a.dev(cmd.Context(), cfg, tour)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "data", "", "keep the data in this directory (default: a temporary one)")
	flags.StringVar(&listen, "listen", devListen, "address to listen on; port 0 takes a free one")
	flags.BoolVar(&tour, "tour", false, "ask every sample request, print a table of the answers, and end")
	flags.StringVar(&logLevel, "log-level", "error", "least important lines to log on standard error: debug, info, warn or error")
	cmd.AddCommand(a.devToken())
	return cmd
}

// onThisMachine takes an address of the loopback interface, or localhost. An empty host is every interface,
// and any other name is not looked up.
func onThisMachine(address string) bool {
	// Without a port it is no address to listen on, and refused as well.
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// dev runs a development server until ctx ends, or for a tour. Its end is waited for in either case, and an
// error of closing counts when there is no other: a temporary directory with keys in it should not be left
// behind in silence. The root key is printed with what else there is to paste: it is made anew for each
// temporary directory.
func (a *app) dev(ctx context.Context, cfg server.Config, tour bool) (err error) {
	// It returns when all answers, so what is printed can be pasted at once.
	d, err := dev.Start(ctx, dev.Config{Server: cfg})
	if err != nil && ctx.Err() != nil {
		return nil // told to end before it was up, and so it did
	}
	if err != nil {
		return startFailure(err)
	}
	defer func() {
		if closeErr := d.Close(); err == nil && closeErr != nil {
			err = startFailure(closeErr)
		}
	}()
	if tour {
		return a.tour(ctx, d)
	}
	// Ctrl-C while it is printed is a clean end as well.
	if err := d.WriteIntro(ctx, a.stdout); err != nil && ctx.Err() == nil {
		return failf("%w", err)
	}
	a.writeSDKs(d.URL(), string(d.Credential()))
	if err := d.Wait(); err != nil {
		return startFailure(err)
	}
	return nil
}

// writeSDKs is last of all that is printed, where it is seen without scrolling. credential is
// copse_<id>_<secret>: the two parts are what AWS's tools call the pair.
func (a *app) writeSDKs(url, credential string) {
	id, secret, _ := strings.Cut(strings.TrimPrefix(credential, "copse_"), "_")
	fmt.Fprintf(a.stdout, `
AWS SDKs speak to the AVP API of this server after:

  export AWS_ENDPOINT_URL_VERIFIEDPERMISSIONS=%s
  export AWS_REGION=us-east-1
  export AWS_ACCESS_KEY_ID=%s
  export AWS_SECRET_ACCESS_KEY=%s

And the other copse commands after:

  export COPSE_URL=%s
  export COPSE_KEY=%s

Ctrl-C ends it.
`, url, id, secret, url, credential)
}

// tourRow is a row of the tour for --output json. Microseconds are those of the decision's round trip. Got
// has the answer's body too where its status is another than expected.
type tourRow struct {
	Name         string   `json:"name"`
	Asked        string   `json:"asked"`
	Expected     string   `json:"expected"`
	Got          string   `json:"got"`
	Determining  []string `json:"determiningPolicies"`
	Microseconds int64    `json:"microseconds"`
	OK           bool     `json:"ok"`
}

// tour asks all cases and shows them in one table, also those whose answers differ: then it fails. A tour
// that could not be begun has no table.
func (a *app) tour(ctx context.Context, d *dev.Dev) error {
	// An error with rows is that some differ, or that the tour ended among them.
	rows, tourErr := d.Tour(ctx, nil)
	if len(rows) == 0 && tourErr != nil {
		return failf("the tour: %w", tourErr)
	}
	out := make([]tourRow, 0, len(rows))
	different := 0
	for _, r := range rows {
		if !r.OK {
			different++
		}
		out = append(out, tourRow{r.Name, r.Asked, r.Expected, r.Got, r.Determining, r.Elapsed.Microseconds(), r.OK})
	}
	err := a.show(out, func(t *table) {
		t.row(" ", "ASKED", "EXPECTED", "GOT", "DETERMINED BY", "MICROSECONDS")
		for _, r := range out {
			t.row(mark(r.OK), r.Asked, r.Expected, r.Got, strings.Join(r.Determining, " "), strconv.FormatInt(r.Microseconds, 10))
		}
	})
	switch {
	case err != nil:
		return err
	// The error of the tour lists the differences again: the table has them already.
	case different > 0:
		return failf("%d of %d answers are not as expected", different, len(rows))
	case tourErr != nil:
		return failf("the tour: %w", tourErr)
	}
	a.say("all %d answers are as expected", len(rows))
	return nil
}

func mark(ok bool) string {
	if ok {
		return "ok"
	}
	return "DIFFERS"
}

// devToken asks a running development server for a token and prints nothing else, so that it fits into
// "$(...)". It needs no key: the issuers ask for none.
func (a *app) devToken() *cobra.Command {
	var in dev.TokenRequest
	var tenant, issuer string
	var claims []string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a token of a development issuer",
		Long: `Print a token signed by an issuer of a running "copse dev", for any tenant and user you name.

The issuer is the tenant's own unless --issuer names another: "tenant" for the tenant's own, "shared"
for the one that serves all, or the name of any tenant, whose issuer then claims --tenant, which copse
must refuse. With --expires -1m the token is one minute out of date.`,
		Example: `  copse dev token --tenant acme --user alice --group approver

  # what a service would be sent
  curl -H "Authorization: Bearer $(copse dev token --tenant acme --user alice)" ...

  # must be refused: globex's issuer speaks of acme
  copse dev token --tenant acme --user mallory --issuer globex`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tenant == "" || in.User == "" {
				return usagef("--tenant and --user are needed; `copse dev token --help` has examples")
			}
			// A tenant that there is none of is fine, copse has to refuse it; what can't be one's id would
			// not reach copse.
			if err := copse.TenantID(tenant).Validate(); err != nil {
				return usagef("%v", err)
			}
			in.Tenant = copse.TenantID(tenant)
			if in.Issuer = issuer; issuer == "tenant" {
				in.Issuer = tenant
			}
			var err error
			if in.Claims, err = parseClaims(claims); err != nil {
				return err
			}
			c, err := a.anonymousClient("http://" + devListen)
			if err != nil {
				return err
			}
			token, err := dev.Mint(cmd.Context(), c.http, c.base, in)
			if err != nil {
				return failf("%w", err)
			}
			_, err = fmt.Fprintln(a.stdout, token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&tenant, "tenant", "t", "", "the tenant the token claims")
	a.completeTenantFlag(cmd)
	flags.StringVarP(&in.User, "user", "u", "", "the user: the sub claim")
	flags.StringArrayVarP(&in.Groups, "group", "g", nil, "a group of the user; may be repeated")
	flags.StringArrayVar(&claims, "claim", nil, "a further claim, name=value; JSON values are taken as such; may be repeated")
	flags.DurationVar(&in.Expires, "expires", time.Hour, "how long it is good for; below zero: how long it has expired")
	flags.StringVar(&issuer, "issuer", "", "who signs: tenant, shared or a tenant's name (default: tenant)")
	return cmd
}

// parseClaims reads name=value. A value that is JSON is a claim of that type, digit by digit, so that
// level=3 is a number and roles=["a"] a list; what is not JSON is a string.
func parseClaims(given []string) (map[string]any, error) {
	claims := map[string]any{}
	for _, claim := range given {
		name, value, ok := strings.Cut(claim, "=")
		if !ok || name == "" {
			return nil, usagef("--claim %q: write name=value", claim)
		}
		// A string, unless the value is JSON.
		claims[name] = value
		if raw := jsontext.Value(value); raw.IsValid() {
			claims[name] = raw
		}
	}
	return claims, nil
}
