package server

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/copse-authz/copse"
)

// certificate is a key pair on disk that may be replaced under a running server.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu        sync.Mutex
	current   *tls.Certificate
	changed   [2]time.Time // of the files, as loaded
	lookAgain time.Time
}

// certificateCheck is how long a replaced certificate may go unnoticed.
const certificateCheck = time.Second

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	changed, err := c.modified()
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "TLS certificate: %w", err)
	}
	if err := c.load(changed); err != nil {
		return nil, copse.Errorf(copse.Invalid, "TLS certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return c, nil
}

// get is tls.Config.GetCertificate. While the files on disk can't be used, be it that they are being
// replaced one after the other, the last good pair is.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.lookAgain) {
		return c.current, nil
	}
	c.lookAgain = now.Add(certificateCheck)
	changed, err := c.modified()
	if err == nil && changed != c.changed {
		if err = c.load(changed); err == nil {
			c.log.Info("TLS certificate replaced", "file", c.certFile)
		}
	}
	if err != nil {
		c.log.Warn("TLS certificate can't be read again; the former one stays in use", "error", err)
	}
	return c.current, nil
}

func (c *certificate) modified() (times [2]time.Time, err error) {
	for i, file := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return times, err
		}
		times[i] = info.ModTime()
	}
	return times, nil
}

func (c *certificate) load(changed [2]time.Time) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.changed = &pair, changed
	return nil
}
