package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// pair is a certificate and its key in PEM form.
func pair(t *testing.T, serial int64, from, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// Files are replaced one after the other, by halves and wrongly: what is served is always a pair, and the
// log and the metrics say what became of it.
func TestTLSFilesAreReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := Config{TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
		write := func(file string, content []byte) {
			t.Helper()
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		cert1, key1 := pair(t, 1, now.Add(-time.Hour), now.Add(time.Hour))
		cert2, key2 := pair(t, 2, now.Add(-time.Hour), now.Add(time.Hour))
		cert3, key3 := pair(t, 3, now.Add(-2*time.Hour), now.Add(-time.Hour))
		cert4, key4 := pair(t, 4, now.Add(10*time.Minute), now.Add(15*time.Minute))
		write(cfg.TLSCert, cert1)
		write(cfg.TLSKey, key1)
		var log lockedLog
		reg := prometheus.NewRegistry()
		f, err := openTLS(&cfg, slog.New(slog.NewTextHandler(&log, nil)), reg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go f.watch(ctx)
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		want := func(what string, serial int64, refused float64, said string) {
			t.Helper()
			leaf := f.inUse.Load().leaf
			if got := leaf.SerialNumber.Int64(); got != serial {
				t.Errorf("%s: certificate %d is served, want %d", what, got, serial)
			}
			if got := gauge(t, reg, "copse_tls_files_refused"); got != refused {
				t.Errorf("%s: refused is %v", what, got)
			}
			if got := gauge(t, reg, "copse_tls_certificate_expiry_timestamp_seconds"); got != float64(leaf.NotAfter.Unix()) {
				t.Errorf("%s: expiry is %v", what, got)
			}
			if text := log.take(); said == "" && text != "" || !strings.Contains(text, said) || strings.Count(text, "\n") > 1 {
				t.Errorf("%s: want one line with %q, the log has %q", what, said, text)
			}
		}
		wait(10 * time.Second)
		want("unchanged", 1, 0, "")
		write(cfg.TLSCert, cert2)
		wait(time.Second)
		want("between the two files", 1, 0, "")
		write(cfg.TLSKey, key2)
		wait(time.Second)
		want("a new pair", 2, 0, "TLS files replaced")
		write(cfg.TLSKey, key1)
		wait(time.Minute)
		want("the key of another, for a minute", 2, 1, "private key does not match")
		write(cfg.TLSKey, nil)
		wait(time.Minute)
		want("an empty key", 2, 1, "the former ones stay in use")
		if err := os.Remove(cfg.TLSKey); err != nil {
			t.Fatal(err)
		}
		wait(time.Minute)
		want("no key", 2, 1, "no such file")
		write(cfg.TLSKey, key2)
		wait(time.Second)
		want("back again", 2, 0, "")
		write(cfg.TLSCert, cert3)
		write(cfg.TLSKey, key3)
		wait(time.Minute)
		want("an expired pair", 2, 1, "expired at")
		write(cfg.TLSCert, cert4)
		write(cfg.TLSKey, key4)
		wait(time.Minute)
		want("a pair before its time", 2, 1, "not valid before")
		wait(10 * time.Minute)
		want("the same pair, in its time", 4, 0, "TLS files replaced")
		wait(10 * time.Minute) // that one expired meanwhile
		write(cfg.TLSCert, cert3)
		write(cfg.TLSKey, key3)
		wait(time.Minute)
		want("no worse than what is served", 3, 0, "TLS files replaced")
	})
}

// lockedLog is what was logged since it was last taken.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// An expired certificate is no reason not to start, but to say so.
func TestExpiredCertificateIsToldAtStart(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
	cert, key := pair(t, 1, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if os.WriteFile(cfg.TLSCert, cert, 0o600) != nil || os.WriteFile(cfg.TLSKey, key, 0o600) != nil {
		t.Fatal("can't write")
	}
	var log bytes.Buffer
	if _, err := openTLS(&cfg, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry()); err != nil || !strings.Contains(log.String(), "expired at") {
		t.Errorf("%v, %s", err, &log)
	}
	if warning, err := checkTLS(&cfg); err != nil || !strings.Contains(warning, "expired at") {
		t.Errorf("%q, %v", warning, err)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return firstMetric(f).GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func firstMetric(f *dto.MetricFamily) *dto.Metric { return f.GetMetric()[0] }
