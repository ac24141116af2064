package access

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
)

// A request that says its body's hash is verified before a byte of the body is read, and its body
// against that hash afterwards.
func TestSignatureIsVerifiedBeforeTheBodyThatIsHashed(t *testing.T) {
	s := newService(t)
	made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	request := func(secret Secret, hashed bool) *http.Request {
		c := newCall(made.ID, secret)
		c.contentHash = hashed
		r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		r.Header = c.sign(t, "http://"+r.Host).Header
		r.Body = io.NopCloser(failingBody{})
		return r
	}
	caller, verified, err := s.PrecheckSigV4(t.Context(), request(secret, true))
	if err != nil || !verified || caller.KeyID != made.ID {
		t.Errorf("with a hash: %+v, %v, %v", caller, verified, err)
	}
	caller, verified, err = s.PrecheckSigV4(t.Context(), request(secret, false))
	if err != nil || verified || caller != (Caller{}) {
		t.Errorf("without a hash nobody is known yet: %+v, %v, %v", caller, verified, err)
	}
	caller, verified, err = s.PrecheckSigV4(t.Context(), request("x"+secret, true))
	wantReason(t, err, InvalidSignature)
	if verified || caller != (Caller{}) {
		t.Errorf("with another secret: %+v, %v", caller, verified)
	}
	_, err = s.SigV4(t.Context(), request(secret, true), []byte("another body"))
	wantReason(t, err, InvalidSignature)
}

// Before a signature was verified nobody learns that a key has expired: anybody may know its id.
func TestExpiryIsToldToWhoCanSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		made, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read, ExpiresAt: time.Now().Add(time.Minute)})
		time.Sleep(time.Minute)
		for _, hashed := range []bool{true, false} {
			for _, known := range []bool{true, false} {
				c := newCall(made.ID, secret)
				if c.contentHash = hashed; !known {
					c.secret += "x"
				}
				r := c.sign(t, "http://copse.example")
				want := InvalidSignature
				if known {
					want = ExpiredToken
				}
				_, verified, err := s.PrecheckSigV4(t.Context(), r)
				switch {
				case hashed:
					wantReason(t, err, want)
				case err != nil || verified:
					t.Errorf("before the body is read: %t, %v", verified, err)
				}
				_, err = s.SigV4(t.Context(), r, []byte(c.body))
				wantReason(t, err, want)
			}
		}
	})
}

func bodyRequest(body io.Reader, length int64) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.ContentLength = length
	return r
}

func TestReadBody(t *testing.T) {
	s := newService(t)
	const limit = 100_000
	read := 0
	for _, size := range []int{0, 1, freeUnverified - 1, freeUnverified, freeUnverified + 1, 50_000, limit - 1, limit, limit + 1, 2 * limit} {
		for _, chunked := range []bool{false, true} {
			for _, verified := range []bool{false, true} {
				want := bytes.Repeat([]byte("b"), size)
				length := int64(size)
				if chunked {
					length = -1
				}
				got, release, err := s.ReadBody(bodyRequest(bytes.NewReader(want), length), limit, verified)
				if size > limit {
					if !errors.Is(err, ErrBodyTooLarge) {
						t.Errorf("%d bytes: %v", size, err)
					}
				} else if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes: %d read, %v", size, len(got), err)
				}
				held := s.unverified.held.Load()
				if mayHold := !verified && size >= freeUnverified; held != 0 && !mayHold || held > limit {
					t.Errorf("%d bytes, verified %v: %d counted", size, verified, held)
				}
				release()
				release()
				if held := s.unverified.held.Load(); held != 0 {
					t.Fatalf("%d bytes: %d still counted after release", size, held)
				}
				read++
			}
		}
	}
	if read != 40 {
		t.Errorf("%d bodies", read)
	}
	_, release, err := s.ReadBody(bodyRequest(io.MultiReader(strings.NewReader("{}"), iotest.ErrReader(errors.New("reset"))), -1), limit, false)
	release()
	wantKind(t, err, copse.Invalid)
	// What is only announced takes no memory.
	_, release, err = s.ReadBody(bodyRequest(iotest.ErrReader(errors.New("reset")), limit), limit, false)
	if held := s.unverified.held.Load(); held != 0 || err == nil {
		t.Errorf("%d counted, %v", held, err)
	}
	release()
}

func TestUnverifiedBodiesAreBounded(t *testing.T) {
	s := newService(t)
	const size = 1 << 20
	body := make([]byte, size)
	var releases []func()
	var refused error
	for range 200 {
		_, release, err := s.ReadBody(bodyRequest(bytes.NewReader(body), size), size, false)
		releases = append(releases, release)
		if err != nil {
			refused = err
			break
		}
	}
	wantKind(t, refused, copse.Unavailable)
	if n := len(releases); n < 60 || n > 70 {
		t.Errorf("refused at the %dth megabyte", n)
	}
	// Neither small bodies nor verified callers are affected.
	for name, c := range map[string]struct {
		size     int
		verified bool
	}{"a decision": {8_000, false}, "verified": {size, true}} {
		got, release, err := s.ReadBody(bodyRequest(bytes.NewReader(body[:c.size]), int64(c.size)), size, c.verified)
		if err != nil || len(got) != c.size {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		release()
	}
	for _, release := range releases {
		release()
	}
	_, release, err := s.ReadBody(bodyRequest(bytes.NewReader(body), size), size, false)
	if err != nil {
		t.Errorf("after they are done: %v", err)
	}
	release()
	if held := s.unverified.held.Load(); held != 0 {
		t.Errorf("%d counted in the end", held)
	}
}
