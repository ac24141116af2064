package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/copse-authz/copse"
)

// The bounds of one PDP. maxConnections is of connections at once; calls beyond it wait for one, within
// their deadlines.
const (
	maxConnections  = 64
	maxAnswerBytes  = 4 << 20 // a page of issuers; a decision is some hundred bytes
	retryPause      = 20 * time.Millisecond
	signedRegion    = "us-east-1" // copse takes any
	signedService   = "verifiedpermissions"
	headerErrorType = "X-Amzn-Errortype"
)

// message is one call: nothing in it has an effect on the server, so it may be sent twice. The body is
// kept whole, since it may be sent again.
type message struct {
	method, path string
	target       string // of the AVP API
	body         []byte
}

// answer is what came back. The body is read whole, within maxAnswerBytes.
type answer struct {
	status    int
	errorType string
	body      []byte
}

// newHTTPClient takes no proxy from the environment: who decides is what was
// configured, and nothing in between.
func newHTTPClient(o *PDPOptions) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: o.Timeout}).DialContext,
			TLSClientConfig:        o.TLS,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    o.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
		},
		// A decision comes from where it was asked of. Not following is what keeps a redirect from
		// taking the key, or the decision, to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// call sends a message, a second time when the first had no answer and budget and deadline allow it. An
// answer is one that says something of the message; everything else is Unavailable. There is one second
// attempt at most, and none for what was answered, be it a refusal.
func (p *PDP) call(ctx context.Context, m *message) (answer, error) {
	a, again, err := p.attempt(ctx, m)
	if err == nil || !again || !p.breaker.mayRetry() {
		return a, err
	}
	// The random part keeps callers that failed together from coming back together.
	pause := time.NewTimer(retryPause + rand.N(retryPause))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return answer{}, unanswered(ctx.Err())
	}
	p.metrics.retries.Inc()
	a, _, err = p.attempt(ctx, m)
	return a, err
}

// unanswered keeps the cause, so that an ended context can be told from a server that is away.
func unanswered(err error) error {
	return copse.Errorf(copse.Unavailable, "the copse server gave no answer: %w", err)
}

// attempt sends a message once; again says that a second time might help. It counts the attempt, and
// tells the breaker how it ended, whatever way it returns.
func (p *PDP) attempt(ctx context.Context, m *message) (a answer, again bool, err error) {
	probe, err := p.breaker.enter(time.Now())
	if err != nil {
		p.metrics.count("open")
		return answer{}, false, err
	}
	o := failed // also when what follows panics
	defer func() {
		if p.breaker.leave(time.Now(), probe, o) {
			p.metrics.opened.Inc()
		}
	}()
	// The attempt's own time, within the caller's.
	within, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	a, err = p.send(within, m)
	// A caller that went away says nothing of the server; one whose deadline passed was
	// not answered in it.
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		o = abandoned
		p.metrics.count("abandoned")
		return answer{}, false, unanswered(err)
	case err != nil:
		p.metrics.count("failed")
		// An attempt that used up its time is not made again.
		return answer{}, within.Err() == nil, unanswered(err)
	// Redirects and 5xx are not copse's word on the request. Of these, 503
	// and 502 may be over at once.
	case a.status >= http.StatusInternalServerError || a.status < http.StatusOK || a.status >= 300 && a.status < 400:
		p.metrics.count("failed")
		return answer{}, a.status == http.StatusServiceUnavailable || a.status == http.StatusBadGateway,
			copse.Errorf(copse.Unavailable, "the copse server answered %d", a.status)
	}
	// Refusals too: the server is there and has looked at the message.
	o = answered
	if a.status == http.StatusOK {
		p.metrics.count("ok")
	} else {
		p.metrics.count("refused")
	}
	return a, false, nil
}

// send makes one attempt. Redirects are answers here, and refused: what is signed, or carries a key,
// goes nowhere else. The signature covers the body's hash; it is made anew for each attempt, as it
// holds the time.
func (p *PDP) send(ctx context.Context, m *message) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, m.method, p.base+m.path, bytes.NewReader(m.body))
	if err != nil {
		return answer{}, err
	}
	if m.target != "" {
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", m.target)
	}
	if p.options.Bearer {
		r.Header.Set("Authorization", "Bearer "+p.options.Key)
	} else {
		// The secret itself is not sent: only a signature that is good for these bytes.
		hash := sha256.Sum256(m.body)
		key := aws.Credentials{AccessKeyID: p.keyID, SecretAccessKey: p.secret}
		if err := p.signer.SignHTTP(ctx, key, r, hex.EncodeToString(hash[:]), signedService, signedRegion, time.Now()); err != nil {
			return answer{}, err
		}
	}
	resp, err := p.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	// One byte more than the bound tells an answer that is too large from one that just fits.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err == nil && len(body) > maxAnswerBytes {
		err = errors.New("the answer is too large to be one")
	}
	if err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, resp.Header.Get(headerErrorType), body}, nil
}
