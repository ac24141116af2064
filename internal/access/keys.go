package access

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse/internal/storage"
)

// STUB: signatures the transports build on. The package's author moves each to its file.

// Secret is a value that must not be printed: every formatting of it says "[secret]".
type Secret string

// Config is what a Service is made of.
type Config struct {
	Backend   storage.Backend
	MasterKey []byte // 32 bytes
	RootID    string // the root key, never stored; wins over a stored one
	Root      Secret
	Region    string // when set, the only region SigV4 may be signed for
	Metrics   prometheus.Registerer
}

// Service keeps access keys and verifies what is presented.
type Service struct{}

// New makes a Service. It follows the backend until Close.
func New(cfg Config) (*Service, error) { panic("stub") }

// Close stops following the backend.
func (s *Service) Close() error { panic("stub") }

// Key describes an access key, without its secret.
type Key struct {
	ID          string
	Description string
	Scope       Scope
	Verbs       Verb
	CreatedAt   time.Time
	ExpiresAt   time.Time // zero: never
}

// CreateKey makes a key; the secret is returned once and can't be read again. Needs Admin everywhere.
func (s *Service) CreateKey(ctx context.Context, c Caller, k Key) (Key, Secret, error) {
	panic("stub")
}

// ListKeys needs Admin everywhere.
func (s *Service) ListKeys(ctx context.Context, c Caller, after string, limit int) ([]Key, bool, error) {
	panic("stub")
}

// RevokeKey is effective before it returns. NotFound when absent. Needs Admin everywhere.
func (s *Service) RevokeKey(ctx context.Context, c Caller, id string) error { panic("stub") }

// Bearer verifies "copse_<id>_<secret>".
func (s *Service) Bearer(ctx context.Context, credential string) (Caller, error) { panic("stub") }

// SigV4 verifies the signature of r over body, which the caller has read after Precheck passed.
func (s *Service) SigV4(ctx context.Context, r *http.Request, body []byte) (Caller, error) {
	panic("stub")
}

// PrecheckSigV4 looks at the key id and the date before anything of the body is read.
func (s *Service) PrecheckSigV4(ctx context.Context, r *http.Request) error { panic("stub") }

// SealPage makes an opaque, tamper-evident paging token for a position, bound to the call it belongs
// to; OpenPage gives the position back, or Invalid.
func (s *Service) SealPage(call, position string) string { panic("stub") }

// OpenPage opens what SealPage made for the same call. An empty token is the start.
func (s *Service) OpenPage(call, token string) (position string, err error) { panic("stub") }
