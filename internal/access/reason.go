package access

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// Reason says why a credential was refused. The words are AWS's where AWS has one, so that a
// transport can build its error type from them; they are also the label values of
// copse_access_failures_total.
type Reason string

// The reasons.
const (
	MissingAuthenticationToken Reason = "MissingAuthenticationToken" // nothing to verify
	IncompleteSignature        Reason = "IncompleteSignature"        // the signature can't be read, or does not cover what it must
	InvalidSignature           Reason = "InvalidSignature"           // it does not match the request
	UnrecognizedClient         Reason = "UnrecognizedClient"         // no such key, or a session token
	RequestExpired             Reason = "RequestExpired"             // signed too long ago, or in the future
	ExpiredToken               Reason = "ExpiredToken"               // the key has expired
	InvalidCredential          Reason = "InvalidCredential"          // a bearer that is no key's
	Unavailable                Reason = "Unavailable"                // the keys can't be read now
)

// Reasons lists every Reason, for tables and the tests that range over them.
func Reasons() []Reason {
	return []Reason{MissingAuthenticationToken, IncompleteSignature, InvalidSignature, UnrecognizedClient,
		RequestExpired, ExpiredToken, InvalidCredential, Unavailable}
}

// ReasonOf tells why this package refused; empty for any other error.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	return ""
}

// refusal is the cause inside a *copse.Error; it carries the Reason past the border.
// Its text is for the log. What the caller is told is the error's Detail.
type refusal struct {
	reason Reason
	err    error
}

func (r *refusal) Error() string {
	if r.err != nil {
		return string(r.reason) + ": " + r.err.Error()
	}
	return string(r.reason)
}

func (r *refusal) Unwrap() error { return r.err }

// refuse is Unauthenticated with a reason. What format says is told to whoever sent the credential.
func refuse(reason Reason, format string, args ...any) error {
	e := copse.Errorf(copse.Unauthenticated, format, args...)
	e.Err = &refusal{reason: reason, err: e.Err}
	return e
}

// unavailable is not a refusal of the credential: nobody knows yet whether it is good, and a retry may tell.
func unavailable(err error) error {
	return &copse.Error{Kind: copse.Unavailable, Detail: "access keys can't be read now; try again",
		Err: &refusal{reason: Unavailable, err: err}}
}

// failures counts refusals by reason; the label has no other values than [Reasons].
// All of them are there from the start, so that a first failure is a rise from zero.
func newFailures(r prometheus.Registerer) (*prometheus.CounterVec, error) {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_access_failures_total",
		Help: "Credentials of administrative callers that were refused, by reason.",
	}, []string{"reason"})
	for _, reason := range Reasons() {
		failures.WithLabelValues(string(reason))
	}
	if r == nil {
		return failures, nil
	}
	return failures, r.Register(failures)
}

// count passes err on, counted; r is nil when nobody looked for the key.
func (s *Service) count(id string, r *record, err error) error {
	if reason := ReasonOf(err); reason != "" {
		s.failures.WithLabelValues(string(reason)).Inc()
		s.failed(id, r != nil && r.known, err)
	}
	return err
}
