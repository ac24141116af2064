package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	neturl "net/url"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// A URL's length, a document's bytes, and the time for both documents of an issuer together.
const (
	maxURLBytes  = 2048
	maxDocument  = 1 << 20
	fetchTimeout = 5 * time.Second
)

// FetchPolicy says where issuer keys may be fetched from. The zero value: https, public addresses.
// Whoever may register an issuer could otherwise make this server call any address it can reach.
type FetchPolicy struct {
	AllowPrivate bool // private and loopback addresses
	AllowHTTP    bool // http, to loopback only, and only with AllowPrivate
	// Endpoints are the issuers whose keys are elsewhere, by URL.
	Endpoints map[string]Endpoint
}

// Endpoint is where the keys of one issuer are, in place of what its discovery document says. The
// operator named it, so it may have a private address without private addresses being opened to
// whatever issuer somebody registers.
type Endpoint struct {
	KeysURL string         // https, of a key set
	Roots   *x509.CertPool // its trust anchors; nil: those of all others
}

// CheckEndpoint refuses an endpoint that keys could not be fetched from.
func (p FetchPolicy) CheckEndpoint(e Endpoint) error {
	_, err := p.forEndpoints().check(e.KeysURL)
	return err
}

// forEndpoints is the policy for keys that the operator placed: private addresses are allowed, http as before.
func (p FetchPolicy) forEndpoints() FetchPolicy {
	return FetchPolicy{AllowPrivate: true, AllowHTTP: p.AllowHTTP}
}

// CheckURL refuses issuer URLs that the policy would not fetch from: Invalid, with what to change. It
// looks at the text only; the addresses behind a name are checked when they are connected to.
func (p FetchPolicy) CheckURL(url string) error {
	if _, elsewhere := p.Endpoints[url]; elsewhere {
		return nil // nothing is fetched from it
	}
	u, err := p.check(url)
	if err != nil {
		return err
	}
	// The discovery document's path is appended to it.
	if u.RawQuery != "" || u.ForceQuery {
		return copse.Errorf(copse.Invalid, "issuer URL %q: it must not have a query", url)
	}
	return nil
}

// check looks at a URL as it is written. What its name resolves to is looked at when it is connected to, each time.
// Invalid says what to change.
func (p FetchPolicy) check(url string) (*neturl.URL, error) {
	if len(url) > maxURLBytes {
		return nil, copse.Errorf(copse.Invalid, "issuer URL: it has %d bytes, at most %d are allowed", len(url), maxURLBytes)
	}
	u, err := neturl.Parse(url)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return nil, copse.Errorf(copse.Invalid, "issuer URL %q: it must look like https://host/path", url)
	}
	if u.User != nil || strings.Contains(url, "#") {
		return nil, copse.Errorf(copse.Invalid, "issuer URL %q: it must have neither a user nor a fragment", u.Redacted())
	}
	// Loopback by its name or as an address; what any other name resolves to is for the dialer.
	loopback := isLoopbackName(u.Hostname())
	switch u.Scheme {
	case "https":
	case "http":
		if !p.AllowHTTP || !p.AllowPrivate {
			return nil, copse.Errorf(copse.Invalid, "issuer URL %q: use https (http, to loopback only, needs --allow-private-issuers and --allow-http-issuers)", url)
		}
		if !loopback {
			return nil, copse.Errorf(copse.Invalid, "issuer URL %q: http is for loopback only; use https", url)
		}
	default:
		return nil, copse.Errorf(copse.Invalid, "issuer URL %q: use https", url)
	}
	if loopback && !p.AllowPrivate {
		return nil, copse.Errorf(copse.Invalid, "issuer URL %q: loopback needs --allow-private-issuers", url)
	}
	// An address is refused as early as it can be, for whoever registers the issuer to see.
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := p.checkAddr(addr, false); err != nil {
			return nil, copse.Errorf(copse.Invalid, "issuer URL %q: %w", url, err)
		}
	}
	return u, nil
}

// isLoopbackName knows localhost and all below it, with or without the last dot, and loopback addresses.
func isLoopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Ranges that no identity provider on the internet has, besides those that net/netip knows.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT, and inside some clouds
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),        // IPv4 inside IPv6, in three ways
	netip.MustParsePrefix("64:ff9b::/96"), //
	netip.MustParsePrefix("2002::/16"),    //
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("fec0::/10"),
}

// Metadata services hand out credentials of the machine; no policy allows them.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

// localTranslation is for a network's own translation (RFC 8215). Where in its addresses an IPv4 one stands is that network's
// choice, so that none can be looked at, and no policy allows them.
var localTranslation = netip.MustParsePrefix("64:ff9b:1::/48")

// Where in an IPv6 address translation puts an IPv4 one: the last four bytes (RFC 4291 2.5.5.1, RFC 6052 2.1), or
// those after the prefix (RFC 3056).
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// inside is the IPv4 address that an IPv6 one stands for; the zero Addr if it stands for itself.
func inside(addr netip.Addr) netip.Addr {
	if addr.Is4() || addr.IsLoopback() || addr.IsUnspecified() {
		return netip.Addr{}
	}
	for _, e := range embedding {
		if e.prefix.Contains(addr) {
			bytes := addr.As16()
			return netip.AddrFrom4([4]byte(bytes[e.at : e.at+4]))
		}
	}
	return netip.Addr{}
}

// checkAddr decides about an address that is about to be connected to. Link-local addresses, where
// most metadata services live, are refused under any policy.
// An IPv4 address inside an IPv6 one is looked at as what it is. onlyLoopback is for http.
func (p FetchPolicy) checkAddr(addr netip.Addr, onlyLoopback bool) error {
	// A zone picks a network interface, which is not for a URL to do.
	if addr.Zone() != "" {
		return fmt.Errorf("address %s has a zone, which is not allowed", addr)
	}
	addr = addr.Unmap()
	// Where a gateway translates, this is the way to the IPv4 address inside; that has to pass as well.
	if inner := inside(addr); inner.IsValid() {
		if err := p.checkAddr(inner, onlyLoopback); err != nil {
			return fmt.Errorf("address %s: %w", addr, err)
		}
	}
	switch {
	case !addr.IsValid(), addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast(), localTranslation.Contains(addr):
		return fmt.Errorf("address %s is not allowed", addr)
	case onlyLoopback && !addr.IsLoopback():
		return fmt.Errorf("address %s is not loopback, and http is for loopback only", addr)
	}
	// Also where private addresses are allowed: what answers there gives the machine's own credentials away.
	for _, m := range metadata {
		if addr == m {
			return fmt.Errorf("address %s is not allowed", addr)
		}
	}
	if p.AllowPrivate {
		return nil
	}
	private := addr.IsPrivate() || addr.IsLoopback() || !addr.IsGlobalUnicast()
	for _, prefix := range reserved {
		private = private || prefix.Contains(addr)
	}
	if private {
		return fmt.Errorf("address %s is private, which needs --allow-private-issuers", addr)
	}
	return nil
}

// guarded is a transport that checks each address after the name is resolved and right before it is
// connected to, so that a name can't resolve to something else in between.
type guarded struct{ http, https *http.Transport }

// newGuarded checks addresses in the dialer, after the name was resolved: a name that is checked earlier can resolve to
// another address by then (DNS rebinding), and redirects pass here as well.
func newGuarded(p FetchPolicy, roots *x509.CertPool) *guarded {
	transport := func(onlyLoopback bool) *http.Transport {
		// ControlContext is called for each address of a name, with the socket made and nothing sent.
		dialer := &net.Dialer{
			Timeout: fetchTimeout,
			ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
				at, err := netip.ParseAddrPort(address)
				if err != nil {
					return err
				}
				return p.checkAddr(at.Addr(), onlyLoopback)
			},
		}
		// No Proxy: a proxy would do the connecting, where nothing is checked.
		return &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    fetchTimeout,
			ResponseHeaderTimeout:  fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true, // the size limit is on what arrives
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    1,
			ForceAttemptHTTP2:      true,
		}
	}
	return &guarded{http: transport(true), https: transport(false)}
}

// RoundTrip keeps http apart: its dialer connects to loopback only.
func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" {
		return g.http.RoundTrip(r)
	}
	return g.https.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for in a transport.
func (g *guarded) CloseIdleConnections() {
	g.http.CloseIdleConnections()
	g.https.CloseIdleConnections()
}

// fetcher gets an issuer's keys, starting from its URL each time.
type fetcher struct {
	policy FetchPolicy
	client *http.Client
	// endpoints have clients of their own: what one of them trusts, no other issuer's keys come through.
	endpoints map[string]*http.Client
}

// newFetcher connects to nothing yet. cfg.Transport, when set, is for all issuers without an endpoint.
func newFetcher(cfg Config) *fetcher {
	transport := cfg.Transport
	if transport == nil {
		transport = newGuarded(cfg.Fetch, cfg.RootCAs)
	}
	f := &fetcher{policy: cfg.Fetch, client: newClient(transport), endpoints: map[string]*http.Client{}}
	for issuer, e := range cfg.Fetch.Endpoints {
		roots := e.Roots
		if roots == nil {
			roots = cfg.RootCAs
		}
		f.endpoints[issuer] = newClient(newGuarded(cfg.Fetch.forEndpoints(), roots))
	}
	return f
}

// newClient follows no redirect: the answer would be that of whoever it names.
func newClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("redirects are not followed")
		},
	}
}

// close ends connections that wait to be used; fetches under way end with their context.
func (f *fetcher) close() {
	f.client.CloseIdleConnections()
	for _, c := range f.endpoints {
		c.CloseIdleConnections()
	}
}

// keys reads the discovery document and the key set it names.
func (f *fetcher) keys(ctx context.Context, issuer string) (*keySet, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout) // for both documents together
	defer cancel()
	if e, elsewhere := f.policy.Endpoints[issuer]; elsewhere {
		body, err := get(ctx, f.endpoints[issuer], e.KeysURL)
		if err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		return parseKeySet(body)
	}
	// Again, although it was looked at when it was registered: the policy may be a stricter one by now.
	if err := f.policy.CheckURL(issuer); err != nil {
		return nil, err
	}
	// The path is appended to the issuer's own (OpenID Connect Discovery, section 4.1).
	body, err := get(ctx, f.client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	// Everything else in it is the issuer's own affair: algorithms come from the registration.
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &discovery); err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	// It must say whose keys these are (OpenID Connect Discovery, section 4.3).
	if discovery.Issuer != issuer {
		return nil, fmt.Errorf("discovery document: it is that of %q, not of %q, byte for byte", discovery.Issuer, issuer)
	}
	if _, err := f.policy.check(discovery.JWKSURI); err != nil {
		return nil, fmt.Errorf("discovery document: jwks_uri: %w", err)
	}
	if body, err = get(ctx, f.client, discovery.JWKSURI); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return parseKeySet(body)
}

// get reads a document whole. Anything but 200 is an error, and so is one byte too many.
func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "copse")
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	// One byte more than is allowed tells a document that is too long from one that just fits.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxDocument {
		return nil, fmt.Errorf("%s answered more than %d bytes", url, maxDocument)
	}
	return body, nil
}
