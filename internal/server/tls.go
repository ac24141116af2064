package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// tlsCheck is how long replaced files may go unnoticed.
const tlsCheck = time.Second

// tlsSuites are for TLS 1.2: a session's keys are gone with it (ECDHE), and what was changed on the way
// is not decrypted (AEAD). Those of TLS 1.3, which is preferred, are all like that and not a choice.
var tlsSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsFiles are the certificate, its key, and what the certificates of clients have to chain to, if they
// must show one: files that may be replaced under a running server. What is served is always of one
// look at all of them, which fitted together.
type tlsFiles struct {
	cert, key, clientCA string // paths; clientCA may be empty
	log                 *slog.Logger

	inUse   atomic.Pointer[tlsInUse]
	refused atomic.Bool // what is on disk is not what is in use, because it is no good
	// What was wrong at the last look, and what was told of it; the watcher's.
	why, told string
}

// tlsText is what the files hold.
// It is compared as a whole: a look at which any of the three differs is another.
type tlsText struct{ cert, key, clientCA string }

// tlsInUse is never changed once it is in use; another takes its place.
type tlsInUse struct {
	text   tlsText
	config *tls.Config
	leaf   *x509.Certificate
}

// openTLS is nil without a certificate. What can't be served is an error that names the setting; an
// expired certificate is served, with a warning, since clients will say no more than the log does.
func openTLS(cfg *Config, log *slog.Logger, reg prometheus.Registerer) (*tlsFiles, error) {
	if cfg.TLSCert == "" {
		return nil, nil
	}
	f, err := loadTLS(cfg)
	if err != nil {
		return nil, err
	}
	f.log = log
	if err := validNow(f.inUse.Load().leaf); err != nil {
		log.Warn("clients will refuse this server's certificate", "file", f.cert, "error", err)
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_tls_certificate_expiry_timestamp_seconds", Help: "When the certificate that is served expires, in seconds since 1970.",
		}, func() float64 { return float64(f.inUse.Load().leaf.NotAfter.Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_tls_files_refused", Help: "1 while the TLS files on disk are no good and the former ones stay in use.",
		}, func() float64 {
			if f.refused.Load() {
				return 1
			}
			return 0
		}))
	return f, nil
}

// loadTLS reads the files once. Nobody hears of them.
func loadTLS(cfg *Config) (*tlsFiles, error) {
	f := &tlsFiles{cert: cfg.TLSCert, key: cfg.TLSKey, clientCA: cfg.TLSClientCA, log: slog.New(slog.DiscardHandler)}
	text, err := f.read()
	if err != nil {
		return nil, err
	}
	first, err := f.parse(text)
	if err != nil {
		return nil, err
	}
	f.inUse.Store(first)
	return f, nil
}

// listenerConfig asks for what is in use at each handshake, and never touches the disk.
func (f *tlsFiles) listenerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.inUse.Load().config, nil },
	}
}

// watch looks for replaced files until ctx ends.
func (f *tlsFiles) watch(ctx context.Context) {
	tick := time.NewTicker(tlsCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look()
		}
	}
}

// look compares bytes and not times of files: those of a copy may be older than those it replaces.
func (f *tlsFiles) look() {
	former := f.inUse.Load()
	text, err := f.read()
	if err == nil && text == former.text {
		f.fits()
		return
	}
	var next *tlsInUse
	if err == nil {
		next, err = f.parse(text)
	}
	if err == nil && validNow(former.leaf) == nil {
		err = validNow(next.leaf) // a step back would be the worse of the two
	}
	if err != nil {
		why := err.Error()
		if why == f.why && why != f.told { // and not only between the writing of one file and the next
			f.refused.Store(true)
			f.told = why
			f.log.Error("the new TLS files can't be used; the former ones stay in use", "error", err, "expires", former.leaf.NotAfter)
		}
		f.why = why
		return
	}
	// In force with the next handshake; connections that are open keep theirs.
	f.inUse.Store(next)
	f.fits()
	f.log.Info("TLS files replaced", "file", f.cert, "serial", next.leaf.SerialNumber, "expires", next.leaf.NotAfter)
}

// fits: what is on disk is what is in use.
// It begins anew what is told: the same mistake a second time is told a second time.
func (f *tlsFiles) fits() {
	f.refused.Store(false)
	f.why, f.told = "", ""
}

// read reads all files, and names the setting of the first that can't be.
func (f *tlsFiles) read() (text tlsText, err error) {
	for _, file := range []struct {
		setting, path string
		into          *string
	}{{"tls-cert", f.cert, &text.cert}, {"tls-key", f.key, &text.key}, {"tls-client-ca", f.clientCA, &text.clientCA}} {
		if file.path == "" {
			continue
		}
		content, err := os.ReadFile(file.path)
		if err != nil {
			return text, copse.Errorf(copse.Invalid, "--%s: %w", file.setting, err)
		}
		*file.into = string(content)
	}
	return text, nil
}

// parse makes of one look at the files what is served: an error is one of the files, or that they are no pair.
func (f *tlsFiles) parse(text tlsText) (*tlsInUse, error) {
	pair, err := tls.X509KeyPair([]byte(text.cert), []byte(text.key))
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "--tls-cert %s with --tls-key %s: %w", f.cert, f.key, err)
	}
	// For its dates and its serial number: the handshake parses it by itself.
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "--tls-cert %s: %w", f.cert, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: tlsSuites,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if f.clientCA != "" {
		if config.ClientCAs, err = certificates(text.clientCA); err != nil {
			return nil, copse.Errorf(copse.Invalid, "--tls-client-ca %s: %w", f.clientCA, err)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
		// A resumed session would stand for a certificate that may have expired, or lost its CA, since.
		config.SessionTicketsDisabled = true
	}
	return &tlsInUse{text: text, config: config, leaf: leaf}, nil
}

// certificates reads a file of certificates and nothing else: one left out in silence would be somebody's.
func certificates(text string) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds a %s; only certificates belong there", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return pool, nil
}

// validNow says that a certificate has expired, or is not valid yet.
// Nil when neither is so by this machine's clock.
func validNow(leaf *x509.Certificate) error {
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkTLS is for a configuration that nothing is served from yet.
// What keeps a server from starting is the error, what clients will refuse is the warning.
func checkTLS(cfg *Config) (warning string, err error) {
	if cfg.TLSCert == "" {
		return "", nil
	}
	f, err := loadTLS(cfg)
	if err != nil {
		return "", err
	}
	if err := validNow(f.inUse.Load().leaf); err != nil {
		return fmt.Sprintf("--tls-cert %s: %v", cfg.TLSCert, err), nil
	}
	return "", nil
}
