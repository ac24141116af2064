package policystore

import (
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// PolicyStore describes a policy store.
type PolicyStore struct {
	ID          copse.PolicyStoreID
	Tenant      copse.TenantID // empty: the operator's own
	Incarnation copse.Incarnation
	Settings    copse.Settings
	Logging     Logging // of its decisions
	Description string
	Plan        string
	Protected   bool        // from deletion
	Encryption  *Encryption // nil: none was asked for
	Revision    uint64
	Policies    int // links among them
	Templates   int
	CreatedAt   time.Time
	UpdatedAt   time.Time // of settings and description; policies have their own
}

// Encryption is what AVP's clients ask for when they make a policy store, kept to be shown. Nothing is
// encrypted with it.
type Encryption struct {
	Key     string            `json:"key"` // as an ARN
	Context map[string]string `json:"context,omitempty"`
}

// Policy describes a stored policy.
type Policy struct {
	ID          copse.PolicyID
	Name        string // empty: none
	Statement   string // empty for a link
	Link        *Link  // nil for a static policy
	Description string
	Forbids     bool
	Principal   types.EntityUID // zero: the scope names no single one
	Resource    types.EntityUID
	Actions     []types.EntityUID
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Link makes a policy of a template: an entity for each slot it has, the zero UID for one it has not.
type Link struct {
	Template            copse.PolicyTemplateID // or "name/<name>" on its way in
	Principal, Resource types.EntityUID
}

// Template describes a stored policy template.
type Template struct {
	ID          copse.PolicyTemplateID
	Name        string // empty: none
	Statement   string
	Description string
	Forbids     bool
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// NewTemplate asks for a policy template.
type NewTemplate struct {
	Name        string
	Statement   string
	Description string
	ClientToken string `json:"-"` // as in [NewPolicy]
}

// TemplateUpdate changes a template: nil members stay as they are; an empty Name clears it.
type TemplateUpdate struct {
	Name        *string
	Statement   string
	Description *string
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

// PolicyText is a policy, or a template, on its way in.
type PolicyText struct {
	Name        string
	Statement   string
	Link        *Link // instead of a statement; not for a template
	Description string
}

// NewPolicy asks for a policy: a statement, or a link.
type NewPolicy struct {
	Name        string
	Statement   string
	Link        *Link
	Description string
	// ClientToken makes the call one that can be repeated: within eight hours the same token with the
	// same parameters gets the same answer and makes nothing; with others it is a Conflict.
	ClientToken string `json:"-"`
}

func (p *NewPolicy) text() PolicyText {
	return PolicyText{Name: p.Name, Statement: p.Statement, Description: p.Description}
}

// NewPolicyStore asks for a policy store, with contents committed in the same moment as the policy
// store itself.
type NewPolicyStore struct {
	Tenant      copse.TenantID
	Settings    copse.Settings
	Description string
	Plan        string // empty: the service's default
	Protected   bool
	Encryption  *Encryption
	Tags        map[string]string
	Schema      *SchemaText
	Templates   []PolicyText
	Policies    []PolicyText
	// Bind are further directory rows, committed together with the policy store's own row: the
	// tenant and its policy store appear in one moment.
	Bind func(PolicyStore) []storage.Write `json:"-"`
	// ClientToken is as in [NewPolicy]. Every other member is one of the parameters that must be the same.
	ClientToken string `json:"-"`
}

// PolicyUpdate changes a policy: nil members stay as they are; an empty Name clears it.
type PolicyUpdate struct {
	Name        *string
	Statement   *string
	Description *string
}

// Contents is a policy store's schema, templates and policies at one revision.
type Contents struct {
	Revision  uint64
	Schema    *Schema
	Templates []Template // sorted by name, then id
	Policies  []Policy   // likewise
}

// NewContents replaces schema, named templates and named policies in one commit.
type NewContents struct {
	Schema    *SchemaText  // nil keeps the schema
	Templates []PolicyText // nil keeps all templates; an empty list is a list
	Policies  []PolicyText
	// Prune deletes policies, and templates unless Templates is nil, that have no name; otherwise they
	// stay, but for links whose template goes.
	Prune bool
	// IfRevision is the revision the caller read; nil takes any.
	IfRevision *uint64
}

// ContentsResult says what PutContents did.
type ContentsResult struct {
	Revision uint64
	Policies []copse.PolicyRef // named, as they are now
	Created  int               // these count policies and templates
	Updated  int
	Deleted  int
	Kept     []copse.PolicyRef // without a name, left alone
}
