package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One pair is the server's, the client's, and what both trust.
func TestClientOverTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	for name, c := range map[string]struct {
		environ []string
		want    string // of the error; empty: it works
	}{
		"all three":         {[]string{"COPSE_CA=" + certFile, "COPSE_CLIENT_CERT=" + certFile, "COPSE_CLIENT_KEY=" + keyFile}, ""},
		"no CA":             {[]string{"COPSE_CLIENT_CERT=" + certFile, "COPSE_CLIENT_KEY=" + keyFile}, "--ca FILE"},
		"no certificate":    {[]string{"COPSE_CA=" + certFile}, "certificate required; does it ask for a client certificate? --client-cert"},
		"half a pair":       {[]string{"COPSE_CLIENT_CERT=" + certFile}, "go together"},
		"no pair":           {[]string{"COPSE_CLIENT_CERT=" + certFile, "COPSE_CLIENT_KEY=" + certFile}, "--client-key " + certFile},
		"an absent CA":      {[]string{"COPSE_CA=" + dir + "/absent"}, "--ca: open"},
		"a CA that is none": {[]string{"COPSE_CA=" + keyFile}, "holds no certificate"},
	} {
		a := &app{url: s.URL, key: "copse_id_secret", environ: c.environ}
		client, err := a.newClient()
		if err == nil {
			err = client.do(t.Context(), request{method: "GET", path: "/v1/x"})
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
