package pep

import (
	"net/http"
	"strings"

	"github.com/copse-authz/copse"
)

// What the gateway may say. All names that begin like these are copse's, and no handler sees any.
const (
	headerPrefix  = "x-copse-"
	headerTenant  = "X-Copse-Tenant"
	headerContext = "X-Copse-Context"
)

// said is what identity headers a request has.
type said struct {
	tenant, context *string
	names           []string // as they stand in the map
}

// readHeaders finds the identity headers under any spelling that something further in could take for
// theirs: another case, or underscores, which CGI and some proxies make of hyphens. Two of one are
// refused: the handler could have read the other one.
func readHeaders(r *http.Request) (said, error) {
	var s said
	for name := range r.Trailer {
		if _, ours := identityHeader(name); ours {
			return s, refused(resultTenantHeader, "the trailer announces %s; identity headers are no trailers", name)
		}
	}
	for name, values := range r.Header {
		known, ours := identityHeader(name)
		if !ours {
			continue
		}
		s.names = append(s.names, name)
		into, result := &s.tenant, resultTenantHeader
		switch known {
		case "x-copse-tenant":
		case "x-copse-context":
			into, result = &s.context, resultContext
		default:
			continue
		}
		for i := range values {
			if *into != nil {
				return s, refused(result, "there is more than one %s header", known)
			}
			*into = &values[i]
		}
	}
	return s, nil
}

// identityHeader gives the spelling by which names are compared.
func identityHeader(name string) (known string, ours bool) {
	if len(name) < len(headerPrefix) || name[0]|0x20 != 'x' {
		return "", false
	}
	known = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	return known, strings.HasPrefix(known, headerPrefix)
}

// strip removes the identity headers from a copy of the request. Trailers arrive after the body, in a
// map that the copy would share, so it has none.
func (s *said) strip(r *http.Request) *http.Request {
	r.Trailer = nil
	if len(s.names) > 0 {
		r.Header = r.Header.Clone()
		for _, name := range s.names {
			delete(r.Header, name) // not Del: it would not find another spelling
		}
	}
	return r
}

func refused(result result, format string, args ...any) error {
	return &refusal{result: result, err: copse.Errorf(copse.Denied, format, args...)}
}
