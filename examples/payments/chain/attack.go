package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/examples/payments/saas"
	"github.com/copse-authz/copse/remote"
)

// The attacker is a user of acme, or somebody inside the network who has got hold of acme's tokens and of
// what travels between gateway and services. Each attack takes links out of the chain and counts what comes
// back: rows of acme are the attacker's own, a row of anybody else is a crossing.

// attacker carries an attack out. It counts in report what comes back.
type attacker struct {
	*world
	say    narrator
	report *Report

	// Tokens, issued before the first attack: alice's and mona's are acme's, bob's is globex's.
	alice, mona, bob string // tokens
}

// attack is one of the script. An error of run says that something is otherwise than it must be, and ends
// the script.
type attack struct {
	name, holds string // what is taken away, and which link must hold
	run         func(*attacker, context.Context) error
}

// attack signs the users in, runs the script, and fills the report in. An error means that the script could
// not be carried out, or that an answer was another than it must be; crossings are in the report.
func (w *world) attack(ctx context.Context, say narrator, report *Report) error {
	a := &attacker{world: w, say: say, report: report}
	// Tokens of honest sign-ins: what the attacker has, and has got hold of.
	for _, t := range []struct {
		user  string
		token *string
	}{{"alice", &a.alice}, {"mona", &a.mona}, {"bob", &a.bob}} {
		var err error
		if *t.token, err = w.signIn(ctx, t.user, nil); err != nil {
			return err
		}
	}
	say.head("The attacks: links are taken away, the next one holds")
	// In the order of the chain: from what comes before the gateway to what is behind the services.
	for _, each := range []attack{
		{"the application asks for another tenant when it signs in", "the token hook", (*attacker).signInAsAnother},
		{"the token is edited", "the token's signature", (*attacker).editToken},
		{"identity headers are spoofed at the gateway", "the gateway strips, then sets", (*attacker).spoofHeaders},
		{"paths are written so that two programs read them in two ways", "the gateway's canonical form", (*attacker).trickPaths},
		{"the gateway is gone around", "pep wants the gateway's signed context", (*attacker).bypassGateway},
		{"a signed context is replayed: other route, method, token, service", "the context's binding", (*attacker).replayContext},
		{"the gateway asks nobody", "pep decides again", (*attacker).uncheckedGateway},
		{"the service decides nothing", "the gateway, and the database", (*attacker).noDecision},
		{"pep is gone, the service believes a header", "rls starts nothing without a verified tenant", (*attacker).noPEP},
		{"WHERE is gone from every query", "the database", (*attacker).noWhere},
		{"everything at once but the token", "the database", (*attacker).everything},
		{"SQL as the services' role, no tenant set", "the database", (*attacker).bareSQL},
	} {
		// Each attack is told with its own numbers, the report has them all.
		before := *report
		if err := each.run(a, ctx); err != nil {
			return fmt.Errorf("%s: %w", each.name, err)
		}
		say.line("%-66s holds: %s", each.name, each.holds)
		say.line("    %d requests, %d refused, %d own rows, %d rows of another tenant", report.Attacks-before.Attacks, report.Refused-before.Refused,
			report.OwnRows-before.OwnRows, report.Crossings-before.Crossings)
	}
	return a.control(ctx)
}

// try sends one request as acme's, and counts the rows of the answer by tenant, whatever its status. It may
// be anything but a crossing; whether it must be refused is the attack's to say.
func (a *attacker) try(ctx context.Context, method, to, token string, headers ...string) (reply, error) {
	got, err := a.send(ctx, method, to, token, headers...)
	if err != nil {
		return got, err
	}
	a.report.Attacks++
	own, foreign := got.rows["acme"], 0
	for tenant, n := range got.rows {
		if tenant != "acme" {
			foreign += n
		}
	}
	if own+foreign == 0 {
		a.report.Refused++
	}
	a.report.OwnRows += own
	a.report.Crossings += foreign
	return got, nil
}

// refused sends a request that must come back with nothing: it is an error if the status says otherwise, or if
// there are rows beside it.
func (a *attacker) refused(ctx context.Context, method, to, token string, headers ...string) error {
	got, err := a.try(ctx, method, to, token, headers...)
	if err == nil && (got.status < 400 || len(got.rows) > 0) {
		err = fmt.Errorf("%s %s is answered with %d %s", method, to, got.status, got.body)
	}
	return err
}

// everyRoute of the product, as somebody who wants all of it would ask. Numbers 17 and 18 are invoices
// of acme's and other ones of globex's; 20 is globex's alone.
var everyRoute = [][2]string{
	{"GET", "/invoices"}, {"GET", "/invoices/17"}, {"GET", "/invoices/18"}, {"GET", "/invoices/20"}, {"POST", "/invoices/20/pay"}, {"GET", "/reports/total"},
}

// signInAsAnother: the application sends along, at sign-in and for the token, parameters that could be taken
// for the tenant. The token that comes of it is used then, too: it must be acme's.
func (a *attacker) signInAsAnother(ctx context.Context) error {
	token, err := a.signIn(ctx, "alice", url.Values{
		"tenant_id": {"globex"}, "tenant": {"globex"}, "resource_tenant": {"globex"},
		"claims": {`{"id_token":{"tenant_id":{"value":"globex"}}}`},
	})
	if err != nil {
		return err
	}
	if got := claims(token)["tenant_id"]; got != "acme" {
		return fmt.Errorf("the token is for %v", got)
	}
	for _, route := range everyRoute {
		if _, err := a.try(ctx, route[0], a.gateway+route[1], token); err != nil {
			return err
		}
	}
	return nil
}

// editToken: the token says globex, under its former signature, under none, and under an algorithm that needs
// none. It is tried at every door: the gateway, the one that asks nobody, and the service.
func (a *attacker) editToken(ctx context.Context) error {
	parts := strings.Split(a.alice, ".")
	all := claims(a.alice)
	all["tenant_id"] = "globex"
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	edited := b64(text)
	// The signature of another text; no signature; and a header that says that there is to be none.
	for _, token := range []string{
		parts[0] + "." + edited + "." + parts[2],
		parts[0] + "." + edited + ".",
		b64([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + edited + ".",
	} {
		for _, to := range []string{a.gateway, a.unchecked, a.invoices.url} {
			if err := a.refused(ctx, "GET", to+"/invoices", token); err != nil {
				return err
			}
		}
	}
	return nil
}

// spoofHeaders: the client sends headers that the links set or read, and that other products read. Rows may
// come back if they are acme's: the requests are alice's own.
func (a *attacker) spoofHeaders(ctx context.Context) error {
	spoofed := []string{
		"X-Copse-Tenant: globex", `X-Copse-Principal: User::"bob"`, "X-Copse-Decision: mine", "X-Copse-Context: " + a.alice,
		"X-Tenant-Id: globex", "X-Original-URI: /invoices/17", "X-Original-Method: GET", "X-Forwarded-Uri: /invoices", "X-Forwarded-Method: GET",
	}
	// All of them at once: the answer must be what it is without them.
	for _, route := range everyRoute {
		if _, err := a.try(ctx, route[0], a.gateway+route[1], a.alice, spoofed...); err != nil {
			return err
		}
	}
	// What she may not reach she may not reach by naming something else either.
	return a.refused(ctx, "GET", a.gateway+"/reports/total", a.alice, spoofed...)
}

// trickPaths: what one program takes for a path that alice may ask for, and the next one for the report or
// for an invoice of another number. All are refused, those that would come to a path of her own as well.
func (a *attacker) trickPaths(ctx context.Context) error {
	for _, path := range []string{
		"//invoices", "/invoices/../reports/total", "/invoices/%2e%2e/reports/total", "/invoices/..%2freports%2ftotal", "/invoices/17%2f..%2f20",
		"/./reports/total", "/invoices/17;/../../reports/total", "/invoices/17%00", "/reports/%74otal/", "/invoices/%2517", "/reports//total",
	} {
		if err := a.refused(ctx, "GET", a.gateway+"/x?raw="+path, a.alice); err != nil {
			return err
		}
	}
	return nil
}

// bypassGateway: the services are asked themselves, with a good token of a manager. Without a context that the
// gateway signed they answer nothing, whatever stands in its place.
func (a *attacker) bypassGateway(ctx context.Context) error {
	// No identity headers; another tenant's; the right one's; and a token where a context belongs.
	for _, headers := range [][]string{nil, {"X-Copse-Tenant: globex"}, {"X-Copse-Tenant: acme"}, {"X-Copse-Context: " + a.mona}} {
		for _, route := range everyRoute {
			to := a.invoices.url
			if strings.HasPrefix(route[1], "/reports") {
				to = a.reports.url
			}
			if err := a.refused(ctx, route[0], to+route[1], a.mona, headers...); err != nil {
				return err
			}
		}
	}
	return nil
}

// replayContext has what a good request through the gateway carried, and sends it with everything else.
func (a *attacker) replayContext(ctx context.Context) error {
	// What earlier attacks left there is not the context of the request below.
	for len(a.invoices.contexts) > 0 {
		<-a.invoices.contexts
	}
	if got, err := a.try(ctx, "GET", a.gateway+"/invoices/17", a.mona); err != nil || got.status != 200 {
		return errors.Join(fmt.Errorf("a good request is answered with %d", got.status), err)
	}
	signed := "X-Copse-Context: " + <-a.invoices.contexts
	got, err := a.try(ctx, "GET", a.invoices.url+"/invoices/17", a.mona, signed)
	if err != nil || got.status != 200 { // the very same request, within its minute: nothing is gained by it
		return errors.Join(fmt.Errorf("the same request is answered with %d", got.status), err)
	}
	// One thing is another each time: path, method, service, and at last whose token comes with it.
	for _, c := range []struct{ method, to, token string }{
		{"GET", a.invoices.url + "/invoices", a.mona}, {"GET", a.invoices.url + "/invoices/18", a.mona}, {"GET", a.invoices.url + "/invoices/20", a.mona},
		{"POST", a.invoices.url + "/invoices/17/pay", a.mona}, {"GET", a.reports.url + "/reports/total", a.mona},
		{"GET", a.invoices.url + "/invoices/17", a.alice}, {"GET", a.invoices.url + "/invoices/17", a.bob},
	} {
		if err := a.refused(ctx, c.method, c.to, c.token, signed); err != nil {
			return err
		}
	}
	// And the other way round: a context is no token.
	return a.refused(ctx, "GET", a.gateway+"/invoices/17", strings.TrimPrefix(signed, "X-Copse-Context: "))
}

// uncheckedGateway: nginx passes everything. With contexts required nothing is served; without, pep's own
// decision is what is left.
func (a *attacker) uncheckedGateway(ctx context.Context) error {
	// The product's services, as they are: without a signed context they serve nothing.
	for _, route := range everyRoute {
		if err := a.refused(ctx, route[0], a.unchecked+route[1], a.mona); err != nil {
			return err
		}
	}
	// The same services without that demand.
	invoices, err := a.serve(a.pdp, "invoices", false, saas.DefaultQueries(), saas.Invoices)
	if err != nil {
		return err
	}
	reports, err := a.serve(a.pdp, "reports", false, saas.DefaultQueries(), saas.Reports)
	if err != nil {
		return err
	}
	eve, err := a.signIn(ctx, "eve", nil)
	if err != nil {
		return err
	}
	// What policies deny: without a role, over a clerk's limit, in dispute, the report of a clerk. Then an
	// invoice of another tenant, no token at all, and one whose signature does not fit.
	for _, c := range []struct{ method, to, token string }{
		{"GET", invoices.url + "/invoices/17", eve}, {"POST", invoices.url + "/invoices/18/pay", a.alice}, {"POST", invoices.url + "/invoices/19/pay", a.mona},
		{"GET", reports.url + "/reports/total", a.alice}, {"GET", invoices.url + "/invoices/20", a.mona}, {"GET", invoices.url + "/invoices", ""},
		{"GET", invoices.url + "/invoices/17", a.alice + "x"},
	} {
		if err := a.refused(ctx, c.method, c.to, c.token, "X-Copse-Tenant: acme"); err != nil {
			return err
		}
	}
	// What mona may do she does, so not all of these are refused: what comes back is counted.
	for _, route := range everyRoute[:5] {
		if _, err := a.try(ctx, route[0], invoices.url+route[1], a.mona); err != nil {
			return err
		}
	}
	return nil
}

// allowAll is a PDP that has lost its mind: it knows tenants and issuers, and allows everything.
type allowAll struct{ *remote.PDP }

// Decide allows.
func (allowAll) Decide(context.Context, *copse.Request) (copse.Response, error) {
	return copse.Response{Decision: copse.Allow}, nil
}

// noDecision: pep runs before a PDP that allows everything. The gateway still asks copse, and the queries still
// run as acme.
func (a *attacker) noDecision(ctx context.Context) error {
	invoices, err := a.serve(allowAll{a.pdp}, "invoices", true, saas.DefaultQueries(), saas.Invoices)
	if err != nil {
		return err
	}
	reports, err := a.serve(allowAll{a.pdp}, "reports", true, saas.DefaultQueries(), saas.Reports)
	if err != nil {
		return err
	}
	// A gateway of its own in front of them, which asks: what it lets pass nobody judges again.
	gateway, err := a.nginx("no-decision", invoices, reports, true)
	if err != nil {
		return err
	}
	if err := a.refused(ctx, "GET", gateway+"/reports/total", a.alice); err != nil { // the gateway's decision
		return err
	}
	for _, route := range everyRoute {
		if _, err := a.try(ctx, route[0], gateway+route[1], a.mona); err != nil {
			return err
		}
	}
	return nil
}

// noPEP is the service that many a product has: the tenant is what the header says.
func (a *attacker) noPEP(ctx context.Context) error {
	naive, err := a.listen(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without pep nothing has bound the request's context to a tenant, whatever the query says.
		rows, err := a.db.Query(r.Context(), saas.DefaultQueries().List, pgx.NamedArgs{"tenant": r.Header.Get("X-Copse-Tenant")})
		var all []saas.Invoice
		if err == nil {
			all, err = pgx.CollectRows(rows, pgx.RowToStructByName[saas.Invoice])
		}
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(all)
	}))
	if err != nil {
		return err
	}
	// acme as well: a tenant that only a header names is none, even where it is the right one.
	for _, tenant := range []string{"globex", "acme", "", "globex' OR '1'='1"} {
		if err := a.refused(ctx, "GET", naive.url+"/invoices", a.alice, "X-Copse-Tenant: "+tenant); err != nil {
			return err
		}
	}
	return nil
}

var where = regexp.MustCompile(` WHERE .*?( ORDER BY| GROUP BY| RETURNING|$)`)

// forgotten are the product's queries as somebody wrote them who forgot WHERE, in each. An error means that
// there is a WHERE left, and that the attacks with them would try nothing.
func forgotten() (saas.Queries, error) {
	q := saas.DefaultQueries()
	for _, text := range []*string{&q.List, &q.Get, &q.Pay, &q.Sum} {
		if *text = where.ReplaceAllString(*text, "$1"); strings.Contains(*text, "WHERE") || strings.Contains(*text, "@") {
			return q, fmt.Errorf("WHERE is still in %q", *text)
		}
	}
	return q, nil
}

// noWhere: all links stand, but no query says whose rows it wants.
func (a *attacker) noWhere(ctx context.Context) error {
	queries, err := forgotten()
	if err != nil {
		return err
	}
	invoices, err := a.serve(a.pdp, "invoices", true, queries, saas.Invoices)
	if err != nil {
		return err
	}
	reports, err := a.serve(a.pdp, "reports", true, queries, saas.Reports)
	if err != nil {
		return err
	}
	gateway, err := a.nginx("no-where", invoices, reports, true)
	if err != nil {
		return err
	}
	return a.all(ctx, gateway, gateway)
}

// everything: nobody asks, nobody decides, no context is wanted, no query names a tenant. The token is still
// verified, and the database still knows whose transaction it is.
func (a *attacker) everything(ctx context.Context) error {
	queries, err := forgotten()
	if err != nil {
		return err
	}
	invoices, err := a.serve(allowAll{a.pdp}, "invoices", false, queries, saas.Invoices)
	if err != nil {
		return err
	}
	reports, err := a.serve(allowAll{a.pdp}, "reports", false, queries, saas.Reports)
	if err != nil {
		return err
	}
	return a.all(ctx, invoices.url, reports.url)
}

// all asks for everything, and looks into the database for what was changed.
func (a *attacker) all(ctx context.Context, invoices, reports string) error {
	for _, route := range everyRoute {
		to := invoices
		if strings.HasPrefix(route[1], "/reports") {
			to = reports
		}
		for _, token := range []string{a.alice, a.mona} {
			if _, err := a.try(ctx, route[0], to+route[1], token); err != nil {
				return err
			}
		}
	}
	// An update that no answer shows would be a crossing as well.
	paid, err := a.pg.count(`SELECT count(*) FROM invoices WHERE tenant_id = 'globex' AND paid`)
	if err == nil && paid != 0 {
		err = fmt.Errorf("%d of globex's invoices were paid by acme", paid)
	}
	return err
}

// bareSQL: somebody has the services' database role and writes SQL, without a tenant and with an empty one.
// What is counted is rows that the query counted, not rows of answers.
func (a *attacker) bareSQL(context.Context) error {
	for _, sql := range []string{
		`SELECT count(*) FROM invoices`, `SELECT count(*) FROM invoices WHERE tenant_id = 'globex'`,
		`BEGIN; SELECT set_config('copse.tenant', '', true) \g /dev/null` + "\n" + `SELECT count(*) FROM invoices; COMMIT`,
	} {
		// The services' role reads nothing without a tenant: no error, and no rows.
		n, err := a.pg.countAs(appRole, sql)
		if err != nil {
			return err
		}
		a.report.Attacks++
		a.report.Crossings += n
		if n == 0 {
			a.report.Refused++
		}
	}
	return nil
}

// control counts where nothing holds at all: as the owner of the cluster, past every policy. A count of 0
// there would mean that the attacks had nothing to find.
func (a *attacker) control(context.Context) error {
	n, err := a.pg.count(`SELECT count(*) FROM invoices WHERE tenant_id <> 'acme'`)
	if err == nil && n == 0 {
		err = errors.New("there are no rows of another tenant: the attacks prove nothing")
	}
	a.report.Control = n
	return err
}
