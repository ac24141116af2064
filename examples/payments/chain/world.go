package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/copse-authz/copse/examples/payments/saas"
	"github.com/copse-authz/copse/pep"
	"github.com/copse-authz/copse/remote"
	"github.com/copse-authz/copse/rls"
)

// world is everything that runs. It is started and stopped by one goroutine; what attacks start in it stays
// until it is stopped.
type world struct {
	*processes
	dir, root string // temporary files; the repository

	copse, issuer, gateway string // base URLs
	key                    string // root access key
	pg                     *postgres
	db                     *rls.DB
	pdp                    *remote.PDP
	closers                []func() error

	invoices, reports *service // as they should be
	unchecked         string   // gateway that asks nobody
}

// The users of the identity provider, and what copse is told of them: tenant, then the rest of `copse member
// add`. eve is a member without a role. The provider has one more, nobody, whom copse is not told of.
var members = [][]string{
	{"acme", "--subject", "alice", "--role", "clerk"},
	{"acme", "--subject", "mona", "--role", "manager"},
	{"acme", "--subject", "eve"},
	{"globex", "--subject", "bob", "--role", "staff"},
}

// startWorld starts the links in the order in which they need each other. On an error the world so far is
// returned, to be stopped.
func startWorld(ctx context.Context, say narrator) (*world, error) {
	dir, err := os.MkdirTemp("", "copse-example-")
	if err != nil {
		return nil, err
	}
	w := &world{processes: &processes{ctx: ctx}, dir: dir}
	say.head("Starting the chain")
	// Copse's command line comes out of the first step, its URL and key out of the second; the provider asks
	// copse, the services ask it, and the gateway knows where they are.
	for _, step := range []struct {
		what  string
		start func(context.Context) error
	}{
		{"PostgreSQL, with row-level security from `copse rls`", w.startDatabase},
		{"copse, with two tenants: acme and globex", w.startCopse},
		{"the identity provider, which asks copse whose tenant a token is for", w.startProvider},
		{"two services, invoices and reports, guarded by pep", w.startServices},
		{"nginx, which asks copse before a request passes", w.startGateway},
	} {
		began := time.Now()
		if err := step.start(ctx); err != nil {
			return w, fmt.Errorf("%s: %w", step.what, err)
		}
		say.line("%s (%v)", step.what, time.Since(began).Round(time.Millisecond))
	}
	return w, nil
}

// stop ends what runs in this process, then the programs, and removes the files, as far as there are any. It
// goes on over errors and returns all of them.
func (w *world) stop() error {
	var errs []error
	// Last opened first, as with the programs after them: what asks copse ends before copse does.
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	w.processes.stop()
	if w.pg != nil {
		w.pg.remove()
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// command is copse's own command line, with the root key.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.ctx, filepath.Join(w.dir, "copse"), args...)
	cmd.Env = append(os.Environ(), "COPSE_URL="+w.copse, "COPSE_KEY="+w.key)
	return cmd
}

// startDatabase builds copse, because its command line writes the SQL and judges the result, and starts
// PostgreSQL with the product's table under row-level security. The services' role owns nothing.
func (w *world) startDatabase(ctx context.Context) error {
	root, err := w.run(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/copse-authz/copse"))
	if err != nil {
		return err
	}
	w.root = root
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(w.dir, "copse"), "./cmd/copse")
	build.Dir = root
	if _, err := w.run(build); err != nil {
		return err
	}
	if w.pg, err = w.startPostgres(); err != nil {
		return err
	}
	// The table and its rows, then the role and the policies. Neither command needs a server of copse.
	sql := saas.Schema
	for _, args := range [][]string{{"rls", "init", "--role", appRole}, {"rls", "add", "invoices", "--role", appRole}} {
		text, err := w.run(w.command(args...))
		if err != nil {
			return err
		}
		sql += "\n" + text
	}
	if err := w.pg.exec(sql); err != nil {
		return err
	}
	// The database is not used before copse's own audit of it has found nothing.
	check := w.command("rls", "check", "--role", appRole)
	check.Env = append(check.Env, "COPSE_DATABASE_URL="+w.pg.url(ownerRole))
	if _, err := w.run(check); err != nil {
		return err
	}
	// Open asks the database itself whether it keeps tenants apart, as the services' role.
	w.db, err = rls.Open(ctx, w.pg.url(appRole))
	if err == nil {
		w.closers = append(w.closers, func() error { w.db.Close(); return nil })
	}
	return err
}

// startCopse starts the server as `copse serve`, with a data directory of its own, and makes the tenants.
// Issuers on loopback over http are allowed: the identity provider is one.
func (w *world) startCopse(ctx context.Context) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	w.copse = "http://" + address
	data := filepath.Join(w.dir, "data")
	serve := exec.Command(filepath.Join(w.dir, "copse"), "serve", "--data", data, "--listen", address, "--ops-listen", "",
		"--public-url", w.copse, "--routes-file", filepath.Join(w.root, "examples/payments/saas/routes.yaml"),
		"--allow-private-issuers", "--allow-http-issuers")
	if _, err := w.start("copse", serve, answering(w.copse+"/openapi.json")); err != nil {
		return err
	}
	// The server was given no root key, and has made one by the time it answers.
	key, err := os.ReadFile(filepath.Join(data, "root.key"))
	if err != nil {
		return err
	}
	w.key = strings.TrimSpace(string(key))
	for _, tenant := range []string{"acme", "globex"} {
		from := filepath.Join(w.root, "examples/payments/saas/tenants", tenant)
		if _, err := w.run(w.command("tenant", "create", tenant, "--schema", filepath.Join(from, "schema.cedarschema"), "--policies", filepath.Join(from, "policies"))); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// startProvider registers the issuer and its members with copse, and starts the provider. Its libraries are
// installed the first time, without their scripts.
func (w *world) startProvider(ctx context.Context) error {
	dir := filepath.Join(w.root, "examples/payments/idp")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
		npm.Dir = dir
		if _, err := w.run(npm); err != nil {
			return err
		}
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	// The registration goes first: the address is known before anybody listens there.
	w.issuer = "http://" + address
	// One issuer for both tenants, as a product has that signs all its customers in at one place.
	if _, err := w.run(w.command("issuer", "add", w.issuer, "--tenant", "acme", "--tenant", "globex", "--tenant-claim", "tenant_id",
		"--audience", "https://api.payments.example", "--group-type", "Role", "--group-claim", "roles")); err != nil {
		return err
	}
	for _, m := range members {
		if _, err := w.run(w.command(append([]string{"member", "add", "--issuer", w.issuer, "--tenant"}, m...)...)); err != nil {
			return err
		}
	}
	_, port, _ := net.SplitHostPort(address)
	// The root key has decide everywhere, which the token hook needs; a product would give the provider a
	// key of its own.
	node := exec.Command("node", "idp.mjs", port, w.copse)
	node.Dir, node.Env = dir, append(os.Environ(), "COPSE_HOOK_KEY="+w.key, "NODE_ENV=production")
	_, err = w.start("oidc-provider", node, answering(w.issuer+"/.well-known/openid-configuration"))
	return err
}

// service is one of the product's services, and the contexts that came with its requests: what somebody who
// can read a service's traffic has in hand.
type service struct {
	url      string
	contexts chan string
}

// startServices runs both services in this process, with copse as their PDP.
func (w *world) startServices(context.Context) error {
	var err error
	w.pdp, err = remote.NewPDP(remote.PDPOptions{URL: w.copse, Key: w.key})
	if err != nil {
		return err
	}
	w.closers = append(w.closers, w.pdp.Close)
	if w.invoices, err = w.serve(w.pdp, "invoices", true, saas.DefaultQueries(), saas.Invoices); err != nil {
		return err
	}
	w.reports, err = w.serve(w.pdp, "reports", true, saas.DefaultQueries(), saas.Reports)
	return err
}

// serve runs a service. The product's own run with copse as PDP, with contexts required and with the
// product's queries; attacks run others.
func (w *world) serve(pdp pep.PDP, name string, contexts bool, queries saas.Queries, handler func(saas.Config) http.Handler) (*service, error) {
	cfg := pep.Config{PDP: pdp, AllowPrivateIssuers: true, AllowHTTPIssuers: true}
	if contexts {
		cfg.SignedContext = &pep.SignedContext{
			Issuer: w.copse, Audience: name, KeysURL: w.copse + "/.well-known/copse-context-keys", Required: true,
		}
	}
	// A guard for each service: what is signed for one is not good at the other.
	guard, err := pep.New(cfg)
	if err != nil {
		return nil, err
	}
	w.closers = append(w.closers, guard.Close)
	return w.listen(handler(saas.Config{DB: w.db, Guard: guard, Queries: queries}))
}

// listen serves a handler on a free port of loopback until the world is stopped. It keeps one signed
// context, of the first request since somebody took one out.
func (w *world) listen(h http.Handler) (*service, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &service{url: "http://" + ln.Addr().String(), contexts: make(chan string, 1)}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		// A service does not wait for somebody who reads its traffic.
		select {
		case s.contexts <- r.Header.Get("X-Copse-Context"):
		default:
		}
		h.ServeHTTP(rw, r)
	})}
	go func() { _ = server.Serve(ln) }() // ends with Close
	w.closers = append(w.closers, server.Close)
	return s, nil
}

// startGateway runs nginx twice over: once as it should be, and once without asking anybody.
func (w *world) startGateway(context.Context) error {
	var err error
	// Both stand before the same services.
	if w.gateway, err = w.nginx("gateway", w.invoices, w.reports, true); err != nil {
		return err
	}
	w.unchecked, err = w.nginx("unchecked", w.invoices, w.reports, false)
	return err
}

// nginx's configuration is that of docs/gateway.md, for two services. With ask false it asks nobody, and
// passes on what the client sent, its identity headers too. It returns when nginx answers.
func (w *world) nginx(name string, invoices, reports *service, ask bool) (url string, err error) {
	address, err := freeAddress()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	// With auth_request nginx asks before it passes a request on, and sets copse's headers in place of the
	// client's. The paths go on as they came: proxy_pass has none of its own.
	locations := ""
	for _, s := range []struct{ path, url string }{{"/invoices", invoices.url}, {"/reports", reports.url}} {
		check := ""
		if ask {
			check = `
		auth_request /_copse;
		auth_request_set $copse_tenant    $upstream_http_x_copse_tenant;
		auth_request_set $copse_principal $upstream_http_x_copse_principal;
		auth_request_set $copse_decision  $upstream_http_x_copse_decision;
		auth_request_set $copse_context   $upstream_http_x_copse_context;
		proxy_set_header X-Copse-Tenant    $copse_tenant;
		proxy_set_header X-Copse-Principal $copse_principal;
		proxy_set_header X-Copse-Decision  $copse_decision;
		proxy_set_header X-Copse-Context   $copse_context;`
		}
		locations += fmt.Sprintf("\tlocation %s {%s\n\t\tproxy_pass %s;\n\t}\n", s.path, check, s.url)
	}
	// In the foreground and as one process, so that the process that was started is the one to stop.
	text := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events {}
http {
access_log off;
client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
server {
	listen %[2]s;
%[3]s	location = /_copse {
		internal;
		proxy_pass %[4]s/v1/forward-auth/nginx;
		proxy_pass_request_body off;
		proxy_set_header Content-Length    "";
		proxy_set_header X-Original-Method $request_method;
		proxy_set_header X-Original-URI    $request_uri;
		proxy_set_header X-Copse-Tenant    "";
	}
}
}
`, dir, address, locations, w.copse)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	path, err := find("nginx")
	if err != nil {
		return "", err
	}
	url = "http://" + address
	_, err = w.start("nginx", exec.Command(path, "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log")), answering(url))
	return url, err
}
