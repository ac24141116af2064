// Package policystore is the PAP: every change to a policy store goes through it, and every decision
// reads the snapshots it caches.
package policystore

import (
	"context"
	"log/slog"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// STUB: signatures the transports build on. The package's author moves each to its file.

// Config is what a Service is made of.
type Config struct {
	Backend    storage.Backend
	CacheBytes int64 // snapshots kept compiled; 0 = 256 MiB
	Log        *slog.Logger
	Metrics    prometheus.Registerer
}

// Service administers policy stores and decides from them.
type Service struct{}

// New makes a Service. It follows the backend until Close.
func New(cfg Config) (*Service, error) { panic("stub") }

// Resume finishes what a former process left half done: policy stores being erased, heads that never
// got a directory row. It is called once, before the server listens.
func (s *Service) Resume(ctx context.Context) error { panic("stub") }

// Close stops following the backend and background work; the backend stays open.
func (s *Service) Close() error { panic("stub") }

// PolicyStore describes a policy store.
type PolicyStore struct {
	ID          copse.PolicyStoreID
	Tenant      copse.TenantID // empty: the operator's own
	Incarnation copse.Incarnation
	Settings    copse.Settings
	Description string
	Revision    uint64
	Policies    int
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Policy describes a stored policy.
type Policy struct {
	ID          copse.PolicyID
	Name        string // empty: none
	Statement   string
	Description string
	Forbids     bool
	Principal   types.EntityUID // zero: the scope names no single one
	Resource    types.EntityUID
	Actions     []types.EntityUID
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Schema describes a stored schema.
type Schema struct {
	JSON       []byte
	Cedar      string // the source, when it was put in Cedar syntax
	Namespaces []string
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// SchemaText is a schema in one of the two syntaxes.
type SchemaText struct {
	JSON  string
	Cedar string // exactly one of the two is set
}

// PolicyText is a policy on its way in.
type PolicyText struct {
	Name        string
	Statement   string
	Description string
}

// NewPolicyStore asks for a policy store, with contents committed in the same moment as the policy
// store itself.
type NewPolicyStore struct {
	Tenant      copse.TenantID
	Settings    copse.Settings
	Description string
	Schema      *SchemaText
	Policies    []PolicyText
	// Bind are further directory rows, committed together with the policy store's own row: the
	// tenant and its policy store appear in one moment.
	Bind func(PolicyStore) []storage.Write
}

// Create makes a policy store: partition first, directory row last. Needs Admin everywhere.
func (s *Service) Create(ctx context.Context, c access.Caller, in NewPolicyStore) (PolicyStore, error) {
	panic("stub")
}

// Get needs Read. NotFound also when the caller's key does not cover it.
func (s *Service) Get(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (PolicyStore, error) {
	panic("stub")
}

// List returns up to limit policy stores with ids after a given one that the caller may Read, and
// whether there are more.
func (s *Service) List(ctx context.Context, c access.Caller, after copse.PolicyStoreID, limit int) ([]PolicyStore, bool, error) {
	panic("stub")
}

// Delete removes the directory row (together with unbind's), fences the partition, and erases it
// before it returns or, when that takes long, in the background. Deleting what is absent succeeds.
// Needs Admin everywhere.
func (s *Service) Delete(ctx context.Context, c access.Caller, id copse.PolicyStoreID, unbind ...storage.Write) error {
	panic("stub")
}

// PutSchema replaces the schema. Stored policies are not checked again. Needs Write.
func (s *Service) PutSchema(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text SchemaText) (Schema, error) {
	panic("stub")
}

// GetSchema needs Read; NotFound (SCHEMA) when there is none.
func (s *Service) GetSchema(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (Schema, error) {
	panic("stub")
}

// CreatePolicy adds a policy. Conflict when the name is taken. Needs Write.
func (s *Service) CreatePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text PolicyText) (Policy, error) {
	panic("stub")
}

// GetPolicy reads a policy by id, or by "name/<name>". Needs Read.
func (s *Service) GetPolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID) (Policy, error) {
	panic("stub")
}

// PolicyUpdate changes a policy: nil members stay as they are; an empty Name clears it.
type PolicyUpdate struct {
	Name        *string
	Statement   *string
	Description *string
}

// UpdatePolicy changes action scope, conditions, description and name, but neither effect nor
// principal nor resource, as AVP. Needs Write.
func (s *Service) UpdatePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID, u PolicyUpdate) (Policy, error) {
	panic("stub")
}

// DeletePolicy succeeds when the policy is absent. Needs Write.
func (s *Service) DeletePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID) error {
	panic("stub")
}

// ListPolicies returns up to limit policies with ids after a given one, and whether there are more.
// Needs Read.
func (s *Service) ListPolicies(ctx context.Context, c access.Caller, id copse.PolicyStoreID, after copse.PolicyID, limit int) ([]Policy, bool, error) {
	panic("stub")
}

// Contents is a policy store's schema and policies at one revision.
type Contents struct {
	Revision uint64
	Schema   *Schema
	Policies []Policy // sorted by name, then id
}

// GetContents needs Read.
func (s *Service) GetContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (Contents, error) {
	panic("stub")
}

// NewContents replaces schema and named policies in one commit.
type NewContents struct {
	Schema   *SchemaText // nil keeps the schema
	Policies []PolicyText
	// Prune deletes policies that have no name; otherwise they stay.
	Prune bool
	// IfRevision is the revision the caller read; nil takes any.
	IfRevision *uint64
}

// ContentsResult says what PutContents did.
type ContentsResult struct {
	Revision uint64
	Policies []copse.PolicyRef // named, as they are now
	Created  int
	Updated  int
	Deleted  int
	Kept     []copse.PolicyRef // without a name, left alone
}

// PutContents validates everything, then commits everything at once, so that no moment exists without
// a forbid. The same name keeps its policy id. Conflict when IfRevision is not the current one.
// Needs Write.
func (s *Service) PutContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewContents) (ContentsResult, error) {
	panic("stub")
}

// Decider decides without asking who calls: for the authorizer, whose authority is the user's token,
// and for embedded.
func (s *Service) Decider() copse.Decider { panic("stub") }

// DecideAs decides for a caller whose key must cover the policy store with Decide.
func (s *Service) DecideAs(ctx context.Context, c access.Caller, req *copse.Request) (copse.Response, error) {
	panic("stub")
}
