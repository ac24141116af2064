package main

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

const (
	// A certificate that ends within this time is worth a word, and a clock that is off by more than that.
	certificateSoon = 14 * 24 * time.Hour
	clockOff        = time.Minute
)

// doctorCommand has one form of result for both ways of looking, so that both are shown and counted alike.
func (a *app) doctorCommand() *cobra.Command {
	var data, config string
	cmd := &cobra.Command{
		Use:   "doctor [--data DIR] [--config FILE]",
		Short: "Find out what is wrong with a server, and what to do",
		Long: `Look a server over and say what is wrong or soon will be, and what to do about it. Nothing is changed.

With --data or --config it looks at what a server would start with, on this machine and as the server's
user: configuration, who can reach the files, room, lock, format and pages of the database, clock, master
key, certificate, backups, lost lines of the decision log, limits. No server can start on the data directory
meanwhile; where one runs, the database is left to it.

Without them it asks the running server (--url, and a key with admin everywhere): whether it can decide and why
not, access keys about to expire, certificate, backups, lost lines, limits, and version and clock against this
program's. "copse check" reads every row instead, and takes as long as that takes.

The exit code is 1 when there is an error; warnings are shown and change nothing else.`,
		Example: `  copse doctor --config /etc/copse/copse.yaml

  # of the server that runs
  copse doctor --url https://copse.example.com --output json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" && config == "" {
				d, err := a.askServer(cmd.Context())
				if err != nil {
					return err
				}
				return a.showDiagnosis(d)
			}
			return a.showDiagnosis(server.Diagnose(cmd.Context(), firstOf(config, a.env("COPSE_CONFIG")), a.environ, data))
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory to look at")
	cmd.Flags().StringVar(&config, "config", "", "configuration file to look at, with the environment and its data directory")
	return cmd
}

// lastAnswer keeps what a client is told beside bodies: headers, and the certificate. resp is of the last
// request that was sent, nil when it got no answer; its body has been read by somebody else.
type lastAnswer struct {
	by   http.RoundTripper // the client's own, which knows certificates
	resp *http.Response
}

// RoundTrip is for one request at a time.
func (l *lastAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.by.RoundTrip(r)
	l.resp = resp
	return resp, err
}

// askServer is what the server says of itself, and what can only be seen from outside: versions, clocks and the
// certificate that is shown to clients. An error means that the server could not be asked, and is no finding.
// What the server found stays before what is added here.
func (a *app) askServer(ctx context.Context) (d api.Diagnosis, err error) {
	c, err := a.newClient()
	if err != nil {
		return d, err
	}
	// The client is this function's own, so its transport may be replaced.
	seen := lastAnswer{by: c.http.Transport}
	c.http.Transport = &seen
	// The request that gives the server's findings is also the one whose connection is looked at.
	if err := c.do(ctx, request{method: http.MethodGet, path: "/v1/doctor", out: &d}); err != nil {
		return d, err
	}
	add := func(severity, check, what, do string) {
		d.Findings = append(d.Findings, api.Finding{Severity: severity, Check: check, What: what, Do: do})
	}
	// Another version is no fault of the server's: it is worth a note.
	if mine := readVersion().Version; d.Version == mine {
		add(api.SeverityOK, "version", "the server is "+mine+", as this program", "")
	} else {
		add(api.SeverityNote, "version", "the server is "+d.Version+", this program is "+mine, "use the server's own: others may not know all it can do")
	}
	now := time.Now()
	if date, err := http.ParseTime(seen.resp.Header.Get("Date")); err == nil && now.Sub(date).Abs() > clockOff {
		add(api.SeverityWarning, "clock", "the server's clock says "+when(date)+", this machine's "+when(now), "find out which is wrong: tokens and signatures are only good at their time")
	}
	// Nil without TLS.
	if t := seen.resp.TLS; t != nil && len(t.PeerCertificates) > 0 {
		d.Findings = append(d.Findings, seenCertificate(t.PeerCertificates[0], now))
	}
	return d, nil
}

// seenCertificate is about the one that clients see, which may be a proxy's. That it was accepted is known:
// there would be no answer otherwise.
func seenCertificate(cert *x509.Certificate, now time.Time) api.Finding {
	f := api.Finding{Severity: api.SeverityOK, Check: "certificate as seen from here", What: "valid until " + when(cert.NotAfter)}
	if now.Add(certificateSoon).After(cert.NotAfter) {
		f.Severity, f.What, f.Do = api.SeverityWarning, "expires at "+when(cert.NotAfter), "renew it, at the server or at the proxy in front of it"
	}
	return f
}

// showDiagnosis shows findings in the order they were made in. Errors among them make it fail, warnings do not.
func (a *app) showDiagnosis(d api.Diagnosis) error {
	errs, warnings := d.Count(api.SeverityError), d.Count(api.SeverityWarning)
	if err := a.show(d, func(t *table) {
		for _, f := range d.Findings {
			t.line(f.Severity + ": " + f.Check + ": " + f.What)
			if f.Do != "" {
				t.line("  " + f.Do)
			}
		}
		t.line(count(errs, "error") + ", " + count(warnings, "warning"))
	}); err != nil {
		return err
	}
	if errs > 0 {
		return failf("the doctor found %s", count(errs, "error"))
	}
	return nil
}
