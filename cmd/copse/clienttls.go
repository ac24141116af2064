package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
)

// transport connects as the operator of a server with a private CA, or with --tls-client-ca, has to.
// Nothing but that differs from the default. Flags win over the environment. With a CA of one's own the
// system's are not believed; a file that can't be used is wrong usage.
func (a *app) transport() (http.RoundTripper, error) {
	ca := firstOf(a.ca, a.env("COPSE_CA"))
	cert, key := firstOf(a.clientCert, a.env("COPSE_CLIENT_CERT")), firstOf(a.clientKey, a.env("COPSE_CLIENT_KEY"))
	// One without the other would connect without showing anything, and be refused for a reason nobody sees.
	if (cert == "") != (key == "") {
		return nil, usagef("--client-cert and --client-key (COPSE_CLIENT_CERT, COPSE_CLIENT_KEY) go together: set both or neither")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, usagef("--ca: %v", err)
		}
		config.RootCAs = x509.NewCertPool()
		// A file of something else would leave an empty pool, which trusts nobody.
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("--ca: %s holds no certificate in PEM form", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, usagef("--client-cert %s with --client-key %s: %v", cert, key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, failf("the default transport of HTTP is another")
	}
	// A copy: the default is the whole process's, and a test has more than one client.
	own := standard.Clone()
	own.TLSClientConfig = config
	return own, nil
}
