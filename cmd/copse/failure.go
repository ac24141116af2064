package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// The exit codes are a contract with scripts and service managers: `copse help exit-codes` and
// docs/operations.md list them, and a number never changes its meaning.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitInUse    = 3
	exitNewer    = 4
	exitStorage  = 5
	exitPortUsed = 6
)

// failure is an error with all that the person at the terminal needs: one line of what went wrong, the
// places in their own files, and the code the process ends with. err may be nil; it is for errors.Is and
// errors.As only, and is not shown. findings may be empty; they are shown below the message, in their order.
// A command may also return an *apiError, which is the server's answer, or an error of another package as it
// is: both end with code 1, and [report] and [exitCode] make the same of all three. Errors of packages that
// open a data directory or listen go through [startFailure] first, which knows their codes.
type failure struct {
	code     int
	message  string
	findings []finding
	err      error
}

// Error is the message, without the findings.
func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.err }

// failf is a failure that ends with code 1. What %w wraps can be found in it.
func failf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &failure{code: exitError, message: err.Error(), err: errors.Unwrap(err)}
}

// usagef is for what the command line itself got wrong; nothing was tried. Its code tells a script that
// trying again is of no use.
func usagef(format string, args ...any) error {
	return &failure{code: exitUsage, message: fmt.Sprintf(format, args...)}
}

// misconfigured is wrong usage with a line for each of the mistakes that were joined.
func misconfigured(err error) error {
	all := mistakes(err)
	f := &failure{code: exitUsage, message: all[0].Error()}
	for _, more := range all[1:] {
		// Each line begins as the first one does.
		f.findings = append(f.findings, finding{File: "copse", Message: more.Error()})
	}
	return f
}

// mistakes takes errors.Join apart, however often it was joined. It has at least one entry.
func mistakes(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, mistakes(e)...)
	}
	return all
}

// exitCode tells how the process ends for an error that a command returned; nil is success.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	return asFailure(err).code
}

// asFailure finds the failure in an error, or makes one of an answer of the server's, whose findings
// are then about members of the request.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	f := &failure{code: exitError}
	if e, ok := errors.AsType[*apiError](err); ok {
		for _, field := range e.info.Fields {
			f.findings = append(f.findings, finding{File: field.Path, Line: field.Line, Column: field.Column, Message: field.Message})
		}
	}
	return f
}

// explainFlags names the flag where a finding names the member of the request it became. It changes err in
// place and returns it; what has no flag keeps the member's name.
func explainFlags(flags *pflag.FlagSet, err error) error {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		return err
	}
	for i, field := range e.info.Fields {
		// The server speaks of members in lists too, tenants[0], and a flag for a list may have the singular.
		member, _, _ := strings.Cut(field.Path, "[")
		name := strings.ReplaceAll(kebab(member), ".", "-")
		for _, candidate := range []string{name, strings.TrimSuffix(name, "s")} {
			if flags.Lookup(candidate) != nil {
				e.info.Fields[i].Path = "--" + candidate
			}
		}
	}
	return err
}

// kebab turns principalIdPrefix into principal-id-prefix, the way flags are named after members of requests.
func kebab(member string) string {
	var b strings.Builder
	for _, r := range member {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// report writes "copse: ..." in one line and the findings below it, each with the line of the text it is
// about where that is known. Nothing of it can steer the terminal.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "copse: %s\n", oneLine(err.Error()))
	for _, f := range asFailure(err).findings {
		if err.Error() == f.File+": "+f.Message {
			continue // it has been said
		}
		f.render(w)
	}
}

// oneLine keeps text of a server or a file from steering the terminal or faking a second message.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unprintable(r):
			return '\uFFFD'
		}
		return r
	}, strings.TrimRight(s, "\n"))
}

// unprintable covers control characters and the bidirectional ones, which make a terminal show a
// text in another order than it is read.
func unprintable(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 ||
		r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f
}
