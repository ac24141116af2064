package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// window is how far a request's date may be from ours, either way. A captured request can be
// repeated for as long.
const window = 5 * time.Minute

const amzDateFormat = "20060102T150405Z"

// signed is a request whose form is right: everything about its signature but the signature itself.
type signed struct {
	authorization
	amzDate string
	query   string // canonical
}

// SigV4 verifies the signature of r over body, which the caller has read after Precheck passed. The
// whole request is signed: method, path, query, body, and of the headers Host, Content-Type, every
// X-Amz-* and the others that change what a call does, if they are present. Only the Authorization
// header carries signatures, for long-lived keys: presigned URLs, session tokens, unsigned and
// chunked payloads are refused.
func (s *Service) SigV4(ctx context.Context, r *http.Request, body []byte) (Caller, error) {
	id, rec, err := s.sigV4(ctx, r, body)
	if err != nil {
		return Caller{}, s.count(id, rec, err)
	}
	return rec.caller, nil
}

// PrecheckSigV4 looks at the key id and the date, and at the form of everything else, before anything
// of the body is read. A request that says what its body hashes to (X-Amz-Content-Sha256, which is
// always signed) has its signature verified already here: then verified is true, and c is who calls.
// The body is still anybody's, until SigV4 has seen it.
func (s *Service) PrecheckSigV4(ctx context.Context, r *http.Request) (c Caller, verified bool, err error) {
	id, rec, verified, err := s.precheck(ctx, r)
	if err != nil {
		return Caller{}, false, s.count(id, rec, err)
	}
	if verified {
		c = rec.caller
	}
	return c, verified, nil
}

// precheck returns the id and the key also with an error, as far as they are known; so does sigV4.
func (s *Service) precheck(ctx context.Context, r *http.Request) (id string, rec *record, verified bool, err error) {
	now := time.Now()
	req, err := s.readSigned(r, now)
	if err != nil {
		return req.keyID, nil, false, err
	}
	if rec, err = s.signer(ctx, &req); err != nil {
		return req.keyID, rec, false, err
	}
	// Without a claimed hash, or with a length that is signed and not known yet, only the whole body can tell.
	claimed, ok := claimedHash(r)
	if !ok || r.ContentLength < 0 && req.signs("content-length") {
		return req.keyID, rec, false, nil
	}
	matches, err := req.matches(rec, r, r.ContentLength, claimed)
	switch {
	case err != nil:
		return req.keyID, rec, false, err
	case !matches:
		return req.keyID, rec, false, errNoMatch()
	case rec.expired(now):
		return req.keyID, rec, false, errExpired()
	}
	rec.use.touch(now)
	return req.keyID, rec, true, nil
}

// errNoMatch does not say what differs: whoever has the secret can compute that.
func errNoMatch() error {
	return refuse(InvalidSignature, "the signature does not match this request: check the secret, and that nothing changes the request on its way (a proxy must keep the Host header)")
}

func errExpired() error { return refuse(ExpiredToken, "this access key has expired") }

// claimedHash is what the request says its body hashes to, in the form that readSigned has checked.
func claimedHash(r *http.Request) (hash [sha256.Size]byte, ok bool) {
	sent := r.Header["X-Amz-Content-Sha256"]
	if len(sent) != 1 {
		return hash, false
	}
	_, err := hex.Decode(hash[:], []byte(sent[0]))
	return hash, err == nil
}

// signer finds the key a request names; here an unknown one is an error, since AWS clients are told. Whether it
// has expired is for those to know who can sign with it.
func (s *Service) signer(ctx context.Context, req *signed) (*record, error) {
	rec, err := s.lookup(ctx, req.keyID)
	if err == nil && !rec.known {
		err = refuse(UnrecognizedClient, "there is no such access key")
	}
	return rec, err
}

// sigV4 does the same work whether there is such a key or not; AWS's clients are told which. That the key has expired is
// said to those alone who could sign with it.
func (s *Service) sigV4(ctx context.Context, r *http.Request, body []byte) (string, *record, error) {
	now := time.Now()
	req, err := s.readSigned(r, now)
	if err != nil {
		return req.keyID, nil, err
	}
	rec, err := s.lookup(ctx, req.keyID)
	if err != nil {
		return req.keyID, nil, err
	}
	// For an unknown key as well, whose outcome is the same whatever this says.
	matches, err := req.verify(rec, r, body)
	switch {
	case !rec.known:
		return req.keyID, rec, refuse(UnrecognizedClient, "there is no such access key")
	case err != nil:
		return req.keyID, rec, err
	case !matches:
		return req.keyID, rec, errNoMatch()
	case rec.expired(now):
		return req.keyID, rec, errExpired()
	}
	rec.use.touch(now)
	return req.keyID, rec, nil
}

// readSigned checks all that needs neither the key nor the body.
func (s *Service) readSigned(r *http.Request, now time.Time) (signed, error) {
	var req signed
	if err := checkUnsupported(r); err != nil {
		return req, err
	}
	header, err := single(r, "Authorization")
	if err != nil {
		return req, err
	}
	if req.authorization, err = parseAuthorization(header); err != nil {
		return req, err
	}
	if s.region != "" && req.region != s.region {
		return req, refuse(InvalidSignature, "Authorization: sign for the region %s", s.region)
	}
	if err := req.checkDate(r, now); err != nil {
		return req, err
	}
	if err := req.checkCoverage(r); err != nil {
		return req, err
	}
	if err := checkPath(r.URL.Path); err != nil {
		return req, err
	}
	var ok bool
	if req.query, ok = canonicalQuery(r.URL.RawQuery); !ok {
		return req, refuse(IncompleteSignature, "the query string can be read in more than one way: escape it with %%, and join pairs with &")
	}
	return req, nil
}

// checkUnsupported refuses, by name, the kinds of signing that are not meant for this service.
func checkUnsupported(r *http.Request) error {
	for part := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(part, "=")
		if decoded, ok := escapeQueryComponent(name); ok && strings.HasPrefix(strings.ToLower(decoded), "x-amz-") {
			return refuse(IncompleteSignature, "signatures in the query string (presigned URLs) are not supported: sign the Authorization header")
		}
	}
	if len(r.Header["X-Amz-Security-Token"]) > 0 {
		return refuse(UnrecognizedClient, "session tokens are not supported: sign with an access key of copse")
	}
	if len(r.Trailer) > 0 {
		return refuse(IncompleteSignature, "trailers would not be signed: send the headers before the body")
	}
	if len(r.Header["Authorization"]) == 0 {
		return refuse(MissingAuthenticationToken, "the request is not signed")
	}
	for _, hash := range r.Header["X-Amz-Content-Sha256"] {
		if !isHash(hash) {
			return refuse(IncompleteSignature, "X-Amz-Content-Sha256: unsigned and streaming payloads are not supported: send the SHA-256 of the body in lower-case hexadecimal digits")
		}
	}
	return nil
}

// isHash is true for the one way to write a SHA-256 that AWS's clients use, so that two texts are two hashes.
func isHash(text string) bool {
	var raw [sha256.Size]byte
	if len(text) != hex.EncodedLen(len(raw)) || strings.ToLower(text) != text {
		return false
	}
	_, err := hex.Decode(raw[:], []byte(text))
	return err == nil
}

// single refuses a header sent twice: one part of the way might read the first, another the last.
func single(r *http.Request, name string) (string, error) {
	values := r.Header[name]
	switch len(values) {
	case 0:
		return "", refuse(IncompleteSignature, "%s: the header is missing", name)
	case 1:
		return values[0], nil
	}
	return "", refuse(IncompleteSignature, "%s: the header is there %d times", name, len(values))
}

// checkDate keeps a request that somebody recorded from being sent again later. The texts are AWS's, which SDKs look for to
// correct their clocks.
func (req *signed) checkDate(r *http.Request, now time.Time) error {
	var err error
	if req.amzDate, err = single(r, "X-Amz-Date"); err != nil {
		return err
	}
	at, err := time.Parse(amzDateFormat, req.amzDate)
	if err != nil || len(req.amzDate) != len(amzDateFormat) {
		return refuse(IncompleteSignature, "X-Amz-Date: it must look like %s", amzDateFormat)
	}
	// The day is part of the signing key, the time only of what is signed; they must be of one moment.
	if req.amzDate[:8] != req.date {
		return refuse(InvalidSignature, "Authorization: the date in Credential is not that of X-Amz-Date")
	}
	now = now.UTC()
	if at.Before(now.Add(-window)) {
		return refuse(RequestExpired, "Signature expired: %s is now earlier than %s (%s - 5 min.)",
			req.amzDate, now.Add(-window).Format(amzDateFormat), now.Format(amzDateFormat))
	}
	if at.After(now.Add(window)) {
		return refuse(RequestExpired, "Signature not yet current: %s is still later than %s (%s + 5 min.)",
			req.amzDate, now.Add(window).Format(amzDateFormat), now.Format(amzDateFormat))
	}
	return nil
}

// mustSign reports whether a header changes what a call means, so that it may not be left out of the
// signature: somebody on the way could then add or alter it.
func mustSign(lower []byte) bool {
	if bytes.HasPrefix(lower, []byte("x-amz-")) || bytes.HasPrefix(lower, []byte("x-copse-")) {
		return true
	}
	switch string(lower) {
	case "host", "content-type", "content-encoding", "if-match", "if-none-match":
		return true
	}
	return false
}

// appendLower spares the allocation of strings.ToLower for each header of each request.
func appendLower(b []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// checkCoverage refuses a request with a header that counts and is not signed, or that is there twice: which of
// the two a handler reads would be somebody else's choice.
func (req *signed) checkCoverage(r *http.Request) error {
	if !req.signs("host") {
		return refuse(IncompleteSignature, "Authorization: host must be among the signed headers")
	}
	var buf [64]byte
	for name, values := range r.Header {
		lower := appendLower(buf[:0], name)
		if string(lower) == "host" { // net/http keeps it elsewhere; here it could only contradict
			return refuse(IncompleteSignature, "Host: the header is there twice")
		}
		if !mustSign(lower) {
			continue
		}
		if len(values) != 1 {
			return refuse(IncompleteSignature, "%s: the header is there %d times", name, len(values))
		}
		if !req.signs(string(lower)) {
			return refuse(IncompleteSignature, "Authorization: %s must be among the signed headers", lower)
		}
	}
	return nil
}

// checkPath refuses paths that two readers could resolve differently.
func checkPath(path string) error {
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if segment == "." || segment == ".." || segment == "" && path != "/" && path != "" {
			return refuse(IncompleteSignature, "the path has empty, . or .. segments")
		}
	}
	if strings.HasPrefix(path, "//") || strings.HasSuffix(path, "//") {
		return refuse(IncompleteSignature, "the path has empty, . or .. segments")
	}
	return nil
}

// verify recomputes the signature, for the stand-in of an unknown key as well.
// The hash that the request claims must be the body's, or a signed claim would vouch for another body.
func (req *signed) verify(rec *record, r *http.Request, body []byte) (bool, error) {
	bodyHash := sha256.Sum256(body)
	if claimed, ok := claimedHash(r); ok && claimed != bodyHash {
		return false, refuse(InvalidSignature, "X-Amz-Content-Sha256: it is not the hash of the body")
	}
	return req.matches(rec, r, int64(len(body)), bodyHash)
}

// matches recomputes the signature over a body that has this length and hash.
// Nothing of the request but its signature decides about true; an error is about its form.
func (req *signed) matches(rec *record, r *http.Request, bodyLength int64, bodyHash [sha256.Size]byte) (bool, error) {
	text, ok := canonicalRequest(r, &req.authorization, req.query, bodyLength, bodyHash)
	if !ok {
		return false, refuse(IncompleteSignature, "Authorization: a signed header is not in the request")
	}
	hash := sha256.Sum256(text)
	// SigV4's string to sign: algorithm, date, scope, and the hash of the canonical request, a line each.
	toSign := make([]byte, 0, 256)
	toSign = append(toSign, algorithm...)
	toSign = append(toSign, '\n')
	toSign = append(toSign, req.amzDate...)
	toSign = append(toSign, '\n')
	toSign = append(toSign, req.date+"/"+req.region+"/"+service+"/"+terminator+"\n"...)
	toSign = hex.AppendEncode(toSign, hash[:])

	key, fresh := rec.signingKey(req.date, req.region)
	signature := hmacSHA256(key.key, toSign)
	if subtle.ConstantTimeCompare(signature, req.signature[:]) != 1 {
		return false, nil
	}
	// Only now: a signature that does not match must not push out the key that a good client uses.
	if fresh {
		rec.derived.Store(key)
	}
	return true, nil
}

// signingKey is the key of one day, region and access key.
// It is kept in the record, and goes with it when the access key changes.
type signingKey struct {
	date, region string
	key          []byte
}

// signingKey derives, or takes the one remembered from the last signature that verified: a stranger
// who only knows the id can't make a busy client's calls derive again.
func (r *record) signingKey(date, region string) (k *signingKey, fresh bool) {
	if k := r.derived.Load(); k != nil && k.date == date && k.region == region {
		return k, false
	}
	key := hmacSHA256([]byte("AWS4"+r.secret), []byte(date))
	for _, part := range []string{region, service, terminator} {
		key = hmacSHA256(key, []byte(part))
	}
	return &signingKey{date: date, region: region, key: key}, true
}

func hmacSHA256(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}
