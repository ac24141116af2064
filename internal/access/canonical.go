package access

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest is the text that the signature is over: method, path, query, the signed headers,
// their names, the body's hash. ok is false when a signed header is not there.
func canonicalRequest(r *http.Request, a *authorization, query string, bodyLength int64, bodyHash [32]byte) (text []byte, ok bool) {
	b := make([]byte, 0, 1024)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendPath(b, r.URL.EscapedPath())
	b = append(b, '\n')
	b = append(b, query...)
	b = append(b, '\n')
	for _, name := range a.signedHeaders {
		b = append(b, name...)
		b = append(b, ':')
		if b, ok = appendHeader(b, r, name, bodyLength); !ok {
			return nil, false
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = append(b, a.signedHeadersText...)
	b = append(b, '\n')
	return hex.AppendEncode(b, bodyHash[:]), true
}

// appendPath escapes the path as it came once more: that is SigV4 for every service but S3. Paths
// with . or .. or empty segments never get here, so there is nothing to normalise.
func appendPath(b []byte, escaped string) []byte {
	if escaped == "" {
		return append(b, '/')
	}
	for i := range len(escaped) {
		if escaped[i] == '/' {
			b = append(b, '/')
		} else {
			b = appendEscaped(b, escaped[i])
		}
	}
	return b
}

const upperHex = "0123456789ABCDEF"

// appendEscaped keeps RFC 3986's unreserved characters and escapes every other byte.
func appendEscaped(b []byte, c byte) []byte {
	switch {
	case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
		return append(b, c)
	}
	return append(b, '%', upperHex[c>>4], upperHex[c&15])
}

// canonicalQuery decodes each name and value the way handlers do, escapes them the way SigV4 does,
// and sorts the result. ok is false for a query that handlers could not read in one way only.
// Names without = and with an empty value are the same pair, to SigV4 as to handlers.
func canonicalQuery(raw string) (query string, ok bool) {
	if raw == "" {
		return "", true
	}
	var pairs [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		n, okName := escapeQueryComponent(name)
		v, okValue := escapeQueryComponent(value)
		if part == "" || !okName || !okValue {
			return "", false
		}
		pairs = append(pairs, [2]string{n, v})
	}
	// By name and then value, after escaping, as the signer sorts.
	slices.SortFunc(pairs, func(x, y [2]string) int {
		if c := strings.Compare(x[0], y[0]); c != 0 {
			return c
		}
		return strings.Compare(x[1], y[1])
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0])
		b.WriteByte('=')
		b.WriteString(p[1])
	}
	return b.String(), true
}

// escapeQueryComponent is false for what url.ParseQuery would drop or refuse.
func escapeQueryComponent(s string) (string, bool) {
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case ';': // url.Values drops the whole pair; what is dropped can't be what was signed
			return "", false
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		b = appendEscaped(b, c)
	}
	return string(b), true
}

// appendHeader appends the value of a signed header. net/http moves some headers out of the map.
// Several values are joined by commas, as they may be on the wire. false: the header is not in the request.
func appendHeader(b []byte, r *http.Request, name string, bodyLength int64) ([]byte, bool) {
	switch name {
	case "host":
		return appendTrimmed(b, r.Host), r.Host != ""
	// As read, or before that as announced: whoever calls knows which.
	case "content-length":
		return strconv.AppendInt(b, bodyLength, 10), true
	case "transfer-encoding":
		return appendTrimmed(b, strings.Join(r.TransferEncoding, ",")), len(r.TransferEncoding) > 0
	}
	// Signed names are lower case, and the map has them as net/http writes them.
	values := r.Header[http.CanonicalHeaderKey(name)]
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTrimmed(b, v)
	}
	return b, len(values) > 0
}

// appendTrimmed drops spaces at both ends and makes one of several in between.
func appendTrimmed(b []byte, value string) []byte {
	value = strings.Trim(value, " \t")
	for i := range len(value) {
		if value[i] == ' ' && value[i-1] == ' ' { // a trimmed value does not start with a space
			continue
		}
		b = append(b, value[i])
	}
	return b
}
