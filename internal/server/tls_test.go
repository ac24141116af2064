package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/copse-authz/copse/internal/server"
)

// authority signs certificates, its own first.
type authority struct {
	t    testing.TB
	key  crypto.Signer
	cert *x509.Certificate
	next int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newECDSA(t)}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, a.key)
	return a
}

func newECDSA(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign fills in what a template leaves open.
func (a *authority) sign(template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	a.t.Helper()
	if a.next++; template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(a.next)
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue makes a pair as a client has it.
func (a *authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key := newECDSA(a.t)
	return tls.Certificate{Certificate: [][]byte{a.sign(template, key).Raw}, PrivateKey: key}
}

func certificatePEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}

func writeBytes(t testing.TB, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeCertificate makes a pair that signs for itself.
func writeCertificate(t testing.TB, certFile, keyFile string, serial int64) {
	t.Helper()
	writePair(t, certFile, keyFile, newECDSA(t), &x509.Certificate{SerialNumber: big.NewInt(serial)})
}

func writePair(t testing.TB, certFile, keyFile string, key crypto.Signer, template *x509.Certificate) {
	t.Helper()
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	writeBytes(t, certFile, certificatePEM((&authority{t: t, key: key}).sign(template, key)))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeBytes(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// secure is a server with a certificate that trusting clients take.
func secure(t testing.TB, adjust ...func(*server.Config)) (s *site, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	s = start(t, append([]func(*server.Config){func(c *server.Config) { c.TLSCert, c.TLSKey = cert, key }}, adjust...)...)
	s.trust(nil)
	return s, cert, key
}

// trusting takes any certificate of a server: whose it is, is not what these tests are about.
func trusting() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// trust has the client take the server's certificate, and show one of its own if it is asked.
func (c *caller) trust(own *tls.Certificate) {
	config := trusting()
	if own != nil {
		// Whether or not the server says that it would take it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	c.http.CloseIdleConnections()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	c.t.Cleanup(transport.CloseIdleConnections)
	c.http.Transport = transport
}

// handshake tells what was agreed on. In TLS 1.3 the server's refusal comes when the client thinks that
// it is done: so a byte is asked for, which a server that is content has no reason to send.
func handshake(address string, config *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), err
}

// What is older or weaker than TLS 1.2 with forward secrecy and authenticated encryption is refused, by
// real handshakes. A permissive server beside it shows that the client could do each of them.
func TestTLSHandshakes(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for kind, key := range map[string]crypto.Signer{"ECDSA": newECDSA(t), "RSA": rsaKey} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			writePair(t, certFile, keyFile, key, &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment})
			s := start(t, func(c *server.Config) { c.TLSCert, c.TLSKey, c.InMemory, c.Log = certFile, keyFile, true, nil })
			judge := permissive(t, certFile, keyFile)
			accepted, refused := 0, 0
			compare := func(name string, want bool, config *tls.Config) {
				t.Helper()
				config.InsecureSkipVerify = true
				if _, err := handshake(judge, config.Clone()); err != nil {
					t.Errorf("%s: the client can't do it at all: %v", name, err)
				}
				_, err := handshake(s.Addr().String(), config)
				if (err == nil) != want {
					t.Errorf("%s: %v, want it taken: %v", name, err, want)
				}
				if err == nil {
					accepted++
				} else {
					refused++
				}
			}
			compare("TLS 1.3", true, &tls.Config{MinVersion: tls.VersionTLS13})
			compare("TLS 1.2", true, &tls.Config{MaxVersion: tls.VersionTLS12})
			old := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
			compare("TLS 1.1", false, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, CipherSuites: old})
			compare("TLS 1.0", false, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10, CipherSuites: old})
			for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
				for _, version := range suite.SupportedVersions {
					if fits := strings.Contains(suite.Name, "ECDSA") == (kind == "ECDSA"); version != tls.VersionTLS12 || !fits {
						continue
					}
					good := strings.Contains(suite.Name, "ECDHE") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "CHACHA20"))
					compare(suite.Name, good, &tls.Config{MaxVersion: version, CipherSuites: []uint16{suite.ID}})
				}
			}
			if accepted < 5 || refused < 6 {
				t.Errorf("only %d were taken and %d refused", accepted, refused)
			}
			if state, err := handshake(s.Addr().String(), trusting()); err != nil || state.Version != tls.VersionTLS13 {
				t.Errorf("with the choice, %s is spoken: %v", tls.VersionName(state.Version), err)
			}
		})
	}
}

func permissive(t *testing.T, certFile, keyFile string) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		config.CipherSuites = append(config.CipherSuites, suite.ID)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "x") // the handshake comes with it
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	return ln.Addr().String()
}

func TestALPN(t *testing.T) {
	s, _, _ := secure(t)
	for _, c := range []struct {
		offer []string
		want  string // empty: refused
	}{{[]string{"http/1.1"}, "http/1.1"}, {[]string{"http/1.1", "h2"}, "h2"}, {[]string{"h2"}, "h2"}, {[]string{"spdy/3"}, ""}} {
		config := trusting()
		config.NextProtos = c.offer
		conn, err := tls.Dial("tcp", s.Addr().String(), config)
		if (err == nil) != (c.want != "") {
			t.Errorf("%v: %v", c.offer, err)
		}
		if err == nil && conn.ConnectionState().NegotiatedProtocol != c.want {
			t.Errorf("%v: %q is spoken", c.offer, conn.ConnectionState().NegotiatedProtocol)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	resp, err := s.http.Get(s.URL() + "/openapi.json")
	if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", resp, err)
	}
	_ = resp.Body.Close()
}

// What comes in the clear to a port that speaks TLS is answered in the clear, once, and not served.
func TestPlainHTTPIsRefused(t *testing.T) {
	s, _, _ := secure(t)
	if status, _, body := raw(t, s, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"); status != http.StatusBadRequest || strings.Contains(body, "openapi") {
		t.Errorf("got %d %s", status, body)
	}
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.Listen, cfg.OpsListen = true, "0.0.0.0:0", ""
	open, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := open.Listen(); err == nil || !strings.Contains(err.Error(), "--behind-tls-proxy") {
		t.Errorf("plain HTTP for other machines: %v", err)
	}
	start(t, func(c *server.Config) { c.InMemory, c.Listen, c.BehindTLSProxy = true, "0.0.0.0:0", true })
}

// A pair that can't be served is refused before there is a data directory, let alone a listener.
func TestBadTLSFilesAreRefusedAtStart(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	writeCertificate(t, file("cert"), file("key"), 1)
	writeCertificate(t, file("other-cert"), file("other-key"), 2)
	writeBytes(t, file("text"), []byte("no PEM at all"))
	writeBytes(t, file("both"), append(certificatePEM(newAuthority(t, "x").cert), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...))
	for name, c := range map[string]struct{ cert, key, ca, want string }{
		"no certificate":       {"absent", "key", "", "--tls-cert: open "},
		"no key":               {"cert", "absent", "", "--tls-key: open "},
		"no PEM":               {"text", "key", "", "--tls-cert " + file("text")},
		"the key of another":   {"cert", "other-key", "", "private key does not match"},
		"no CA":                {"cert", "key", "absent", "--tls-client-ca: open "},
		"no PEM for a CA":      {"cert", "key", "text", "holds no certificate"},
		"a key for a CA":       {"cert", "key", "key", "it holds a PRIVATE KEY"},
		"a CA that is damaged": {"cert", "key", "both", "certificate 2"},
	} {
		cfg := server.DefaultConfig()
		cfg.DataDir = file("data")
		cfg.TLSCert, cfg.TLSKey = file(c.cert), file(c.key)
		if c.ca != "" {
			cfg.TLSClientCA = file(c.ca)
		}
		s, err := server.Open(t.Context(), cfg)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := cfg.ValidateFiles(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: config check: %v", name, err)
		}
		if _, err := os.Stat(cfg.DataDir); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: a data directory was made: %v", name, err)
		}
	}
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.TLSClientCA = file("data"), file("cert")
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--tls-client-ca needs") {
		t.Errorf("client certificates without TLS: %v", err)
	}
}

// A replaced certificate is served without a restart, and a pair that does not fit never is.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	s, cert, key := secure(t, func(c *server.Config) { c.Log = nil })
	serial := func() int64 {
		t.Helper()
		state, err := handshake(s.Addr().String(), trusting())
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("serves certificate %d", got)
	}
	writeBytes(t, key, []byte("half written"))
	s.await("copse_tls_files_refused", 1)
	if got := serial(); got != 1 {
		t.Errorf("with a broken key file it serves certificate %d", got)
	}
	writeCertificate(t, cert, key, 2)
	s.await("copse_tls_files_refused", 0)
	if got := serial(); got != 2 {
		t.Errorf("serves certificate %d", got)
	}
}

// await waits until a metric has one of these values.
func (s *site) await(series string, values ...int) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got := s.count(series)
		if slices.Contains(values, got) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s is %d, want %v", series, got, values)
		}
	}
}

// With --tls-client-ca nobody gets as far as a request without a certificate of that CA, on any listener
// that keys and tokens come to.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	caFile := filepath.Join(dir, "ca.pem")
	writeBytes(t, caFile, certificatePEM(ours.cert))
	s, _, _ := secure(t, func(c *server.Config) { c.TLSClientCA, c.ExtAuthzListen, c.Log = caFile, "127.0.0.1:0", nil })

	client := x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	with := func(change func(*x509.Certificate)) *x509.Certificate {
		c := client
		change(&c)
		return &c
	}
	good := ours.issue(with(func(*x509.Certificate) {}))
	stranger := theirs.issue(with(func(*x509.Certificate) {}))
	expired := ours.issue(with(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}))
	serverOnly := ours.issue(with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
	stolen := good // the certificate without its key
	stolen.PrivateKey = newECDSA(t)

	// reach asks at every listener and entrance, and returns how many answered.
	reach := func(own *tls.Certificate) int {
		t.Helper()
		c := newCaller(t, s.URL(), s.root)
		c.trust(own)
		answered := 0
		for _, call := range []func() (reply, error){
			func() (reply, error) {
				return c.try("GET", "/v1/tenants", nil, "Authorization", "Bearer "+s.root)
			},
			func() (reply, error) {
				return c.try("POST", "/", `{}`, "Authorization", "Bearer "+s.root, "X-Amz-Target", "VerifiedPermissions.ListPolicyStores", "Content-Type", "application/x-amz-json-1.0")
			},
			func() (reply, error) { return c.try("GET", "/v1/forward-auth/nginx", nil) },
			func() (reply, error) { return c.try("GET", "/openapi.json", nil) },
		} {
			if _, err := call(); err == nil {
				answered++
			}
		}
		config := c.http.Transport.(*http.Transport).TLSClientConfig
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := checker(t, s.ExtAuthzAddr().String(), credentials.NewTLS(config)).Check(ctx, checkRequest("GET", "/", ""))
		if err == nil {
			answered++
		} else if status.Code(err) != codes.Unavailable {
			t.Errorf("the gateway's call ended with %v", err)
		}
		return answered
	}
	for name, own := range map[string]*tls.Certificate{"none": nil, "of another CA": &stranger, "expired": &expired, "for servers": &serverOnly, "without its key": &stolen} {
		if n := reach(own); n != 0 {
			t.Errorf("with a certificate that is %s, %d of 5 entrances answer", name, n)
		}
	}
	if n := reach(&good); n != 5 {
		t.Errorf("with a good certificate %d of 5 entrances answer", n)
	}
	// The certificate says nothing about who asks: it takes the place of no key.
	c := newCaller(t, s.URL(), "")
	c.trust(&good)
	wantStatus(t, c.call("GET", "/v1/tenants", nil), 401)
	wantStatus(t, newCaller(t, s.ops, "").call("GET", "/readyz", nil), 200)

	// No session outlives what it was made with.
	resumable := trusting()
	resumable.ClientSessionCache, resumable.Certificates = tls.NewLRUClientSessionCache(8), []tls.Certificate{good}
	for range 2 {
		if state, err := handshake(s.Addr().String(), resumable); err != nil || state.DidResume {
			t.Errorf("resumed: %v, %v", state.DidResume, err)
		}
	}

	writeBytes(t, caFile, []byte("half written"))
	s.await("copse_tls_files_refused", 1)
	if n := reach(&good); n != 5 {
		t.Errorf("with a broken CA file %d of 5 entrances answer", n)
	}
	writeBytes(t, caFile, certificatePEM(theirs.cert))
	s.await("copse_tls_files_refused", 0)
	if n, m := reach(&good), reach(&stranger); n != 0 || m != 5 {
		t.Errorf("after the CA was replaced, %d entrances answer to a certificate of the former, %d to one of the new", n, m)
	}
}
