// Command chain runs the sample SaaS on the whole chain, on this machine: an identity provider that asks
// copse's token hook, nginx that asks copse before a request passes, two services that check again with pep,
// and PostgreSQL that refuses other tenants' rows. Then it attacks it: each link is disabled in turn, and the
// next one has to hold.
//
// `make example` runs it. It needs Go, Node.js, nginx and PostgreSQL (`make deps`), listens on loopback only,
// and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	keep := flag.Bool("keep", false, "stay up after the attacks, to look around, until Ctrl-C")
	flag.Parse()
	// A signal ends the context, and by it the script; the world is then stopped as after a good end.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	report, err := run(ctx, os.Stdout, *keep)
	// A crossing ends no attack, so that all are counted: it is an error here.
	if err == nil && report.Crossings > 0 {
		err = fmt.Errorf("%d rows of another tenant were seen", report.Crossings)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chain:", err)
		stop() // os.Exit runs no deferred call
		os.Exit(1)
	}
}

// Report is what was counted.
type Report struct {
	Tour      int // questions of the tour, all answered as expected
	Attacks   int // requests of the attacks
	Refused   int // of those, how many got no row at all
	OwnRows   int // rows of the attacker's own tenant that they got
	Crossings int // rows of another tenant: none
	// Control is how many rows of another tenant the same counting finds where nothing holds: without
	// it, none would prove nothing.
	Control int
}

// run does everything and writes what happens to out. The world is stopped before it returns, whatever came
// of it; what went wrong there is joined to the error. With keep it waits for ctx to end first, which is no
// error.
func run(ctx context.Context, out io.Writer, keep bool) (report Report, err error) {
	say := narrator{out}
	w, err := startWorld(ctx, say)
	// A world that did not start up to its end has processes and files as well.
	if w != nil {
		defer func() { err = errors.Join(err, w.stop()) }()
	}
	if err != nil {
		return report, err
	}
	if report.Tour, err = w.tour(ctx, say); err != nil {
		return report, err
	}
	if err := w.attack(ctx, say, &report); err != nil {
		return report, err
	}
	say.head("The end")
	say.line("%d requests of attackers: %d refused, %d rows of their own tenant, %d rows of another (where nothing holds, the same counting finds %d).",
		report.Attacks, report.Refused, report.OwnRows, report.Crossings, report.Control)
	if keep {
		say.line("Up until Ctrl-C: gateway %s, copse %s, identity provider %s", w.gateway, w.copse, w.issuer)
		<-ctx.Done()
	}
	return report, nil
}

// narrator tells what happens.
type narrator struct{ out io.Writer }

// head begins a section, line is a line of it. That out takes no more is nothing to end the attacks for.
func (n narrator) head(format string, args ...any) {
	_, _ = fmt.Fprintf(n.out, "\n== "+format+"\n", args...)
}

func (n narrator) line(format string, args ...any) {
	_, _ = fmt.Fprintf(n.out, "   "+format+"\n", args...)
}
