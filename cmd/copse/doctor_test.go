package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

// What the doctor sees from outside: clocks that differ, and a certificate that ends soon. The server is a plain one
// that says what it is told to: time and certificates are its own.
func TestDoctorFromOutside(t *testing.T) {
	var date time.Time
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"version":"` + readVersion().Version + `","findings":[]}`))
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{url: s.URL, key: "copse_id_secret", environ: []string{"COPSE_CA=" + ca}}
	for off, severity := range map[time.Duration]string{0: "", 10 * time.Minute: api.SeverityWarning, -10 * time.Minute: api.SeverityWarning} {
		date = time.Now().Add(off)
		d, err := a.askServer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := severityOf(d, "clock"); got != severity {
			t.Errorf("a clock that is %v off: %q, want %q", off, got, severity)
		}
		if got := severityOf(d, "certificate as seen from here"); got != api.SeverityOK {
			t.Errorf("a certificate until %v: %q", s.Certificate().NotAfter, got)
		}
	}
	for left, want := range map[time.Duration]string{time.Hour: api.SeverityWarning, -time.Hour: api.SeverityWarning, certificateSoon + time.Hour: api.SeverityOK} {
		f := seenCertificate(&x509.Certificate{NotAfter: date.Add(left)}, date)
		if f.Severity != want || (f.Do == "") != (want == api.SeverityOK) || !strings.Contains(f.What, when(date.Add(left))) {
			t.Errorf("a certificate for %v more: %+v, want a %s", left, f, want)
		}
	}
}

func severityOf(d api.Diagnosis, check string) string {
	for _, f := range d.Findings {
		if f.Check == check {
			return f.Severity
		}
	}
	return ""
}
