package policystore

import (
	"fmt"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Kinds of items. The first nine live in a policy store's own partition, the rest in the directory;
// [kindClientToken] in both.
const (
	kindSettings       storage.Kind = "settings"        // id ""
	kindSchema         storage.Kind = "schema"          // id ""
	kindPolicy         storage.Kind = "policy"          // id = policy id
	kindName           storage.Kind = "name"            // id = name; makes names unique
	kindIdentitySource storage.Kind = "identity-source" // id = identity source id
	kindTags           storage.Kind = "tags"            // id ""

	kindTemplate     storage.Kind = "template"      // id = policy template id
	kindTemplateName storage.Kind = "template-name" // id = name; templates have names of their own
	kindCascade      storage.Kind = "cascade"       // id = id of a template whose links are being erased

	kindPolicyStore              = access.PolicyStoreKind // it exists when, and only when, this row does
	kindErasure     storage.Kind = "erasure"              // id random: what it says is forgotten with it
	kindPlan        storage.Kind = "plan"                 // id = name
	kindUnlinking   storage.Kind = "unlinking"            // id random, likewise: where a cascade is under way
	kindAlias       storage.Kind = "alias"                // id = name, without AVP's prefix
)

// Of these a policy store has one each, so that their ids are empty.
var (
	settingsKey = storage.Key{Kind: kindSettings}
	tagsKey     = storage.Key{Kind: kindTags}
	schemaKey   = storage.Key{Kind: kindSchema}
)

func policyKey(id copse.PolicyID) storage.Key { return storage.Key{Kind: kindPolicy, ID: string(id)} }
func nameKey(name string) storage.Key         { return storage.Key{Kind: kindName, ID: name} }
func templateKey(id copse.PolicyTemplateID) storage.Key {
	return storage.Key{Kind: kindTemplate, ID: string(id)}
}
func templateNameKey(name string) storage.Key { return storage.Key{Kind: kindTemplateName, ID: name} }
func cascadeKey(id copse.PolicyTemplateID) storage.Key {
	return storage.Key{Kind: kindCascade, ID: string(id)}
}
func rowKey(id copse.PolicyStoreID) storage.Key {
	return storage.Key{Kind: kindPolicyStore, ID: string(id)}
}

func aliasKey(name string) storage.Key { return storage.Key{Kind: kindAlias, ID: name} }
func planKey(name string) storage.Key  { return storage.Key{Kind: kindPlan, ID: name} }

// bodyVersion is in every body. A higher one was written by a newer copse, and is refused rather than
// half understood.
const bodyVersion = 1

// settingsBody is there from a policy store's first commit on.
type settingsBody struct {
	V                int                  `json:"v"`
	Validation       copse.ValidationMode `json:"validation"`
	CheckRequests    bool                 `json:"checkRequests"`
	ForbidErrorsDeny bool                 `json:"forbidErrorsDeny"`
	Description      string               `json:"description,omitzero"`
	Logging          *Logging             `json:"logging,omitzero"`
	Encryption       *Encryption          `json:"encryption,omitzero"` // never changes
	CreatedAt        time.Time            `json:"createdAt"`
	UpdatedAt        time.Time            `json:"updatedAt"`
}

// logging is what holds for the decision log.
func (b *settingsBody) logging() Logging {
	l := Logging{Full: LogDrop}
	if b.Logging != nil {
		l = *b.Logging
	}
	return l
}

func (b *settingsBody) settings() copse.Settings {
	return copse.Settings{Validation: b.Validation, CheckRequests: b.CheckRequests, ForbidErrorsDeny: b.ForbidErrorsDeny}
}

// tagsBody has all tags in one item, since their number is bounded; without the item there are none.
type tagsBody struct {
	V    int               `json:"v"`
	Tags map[string]string `json:"tags"`
}

// schemaBody has the schema as JSON in any case, and as Cedar where it was put as that; the text that was put
// is what is parsed again.
type schemaBody struct {
	V          int            `json:"v"`
	JSON       jsontext.Value `json:"json"`
	Cedar      string         `json:"cedar,omitzero"`
	Namespaces []string       `json:"namespaces"`
	CreatedAt  time.Time      `json:"createdAt"`
	UpdatedAt  time.Time      `json:"updatedAt"`
}

func (b *schemaBody) schema() Schema {
	return Schema{JSON: b.JSON, Cedar: b.Cedar, Namespaces: b.Namespaces, CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt}
}

// text is the schema as it was put.
func (b *schemaBody) text() SchemaText {
	if b.Cedar != "" {
		return SchemaText{Cedar: b.Cedar}
	}
	return SchemaText{JSON: string(b.JSON)}
}

// entityBody is an entity's identifier; in bodies a nil one stands for the zero UID.
type entityBody struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// policyBody repeats what the policy's head says, so that a policy can be listed, and deleted, even if
// a later parser no longer takes it. Of a link it repeats what an update of the template can't change.
type policyBody struct {
	V           int          `json:"v"`
	Name        string       `json:"name,omitzero"`
	Statement   string       `json:"statement"` // empty for a link
	Link        *linkBody    `json:"link,omitzero"`
	Description string       `json:"description,omitzero"`
	Effect      string       `json:"effect"`
	Principal   *entityBody  `json:"principal,omitzero"`
	Resource    *entityBody  `json:"resource,omitzero"`
	Actions     []entityBody `json:"actions,omitempty"` // those of a link are its template's
	CreatedAt   time.Time    `json:"createdAt"`
	UpdatedAt   time.Time    `json:"updatedAt"`
}

// linkBody makes a policy a link. Without its template a link is nothing: it is neither shown nor
// decides, and a cascade erases it.
type linkBody struct {
	Template  copse.PolicyTemplateID `json:"template"`
	Principal *entityBody            `json:"principal,omitzero"` // in the slot; nil: there is no such slot
	Resource  *entityBody            `json:"resource,omitzero"`
}

// link is nil for a static policy.
func (b *linkBody) link() *Link {
	if b == nil {
		return nil
	}
	return &Link{Template: b.Template, Principal: b.Principal.uid(), Resource: b.Resource.uid()}
}

// templateBody repeats effect and actions of the template's head, as policyBody does.
type templateBody struct {
	V           int          `json:"v"`
	Name        string       `json:"name,omitzero"`
	Statement   string       `json:"statement"`
	Description string       `json:"description,omitzero"`
	Effect      string       `json:"effect"`
	Actions     []entityBody `json:"actions,omitempty"`
	CreatedAt   time.Time    `json:"createdAt"`
	UpdatedAt   time.Time    `json:"updatedAt"`
}

// template shows a stored template. The actions are for those who show its links.
func (b *templateBody) template(id copse.PolicyTemplateID) Template {
	return Template{
		ID: id, Name: b.Name, Statement: b.Statement, Description: b.Description,
		Forbids: b.Effect == effectForbid, CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt,
	}
}

// cascadeBody marks, in the policy store's partition, a template that is gone and whose links are not,
// all of them, yet.
type cascadeBody struct {
	V         int       `json:"v"`
	StartedAt time.Time `json:"startedAt"`
}

// unlinkingBody is what tells a restart, in the directory, where to look for a cascade.
type unlinkingBody struct {
	V           int                    `json:"v"`
	PolicyStore copse.PolicyStoreID    `json:"policyStore"`
	Template    copse.PolicyTemplateID `json:"template"`
}

// effects, as they are stored.
const (
	effectPermit = "permit"
	effectForbid = "forbid"
)

// policy shows a stored policy; actions are those of its head, or of its template's.
func (b *policyBody) policy(id copse.PolicyID) Policy {
	p := Policy{
		ID: id, Name: b.Name, Statement: b.Statement, Link: b.Link.link(), Description: b.Description,
		Forbids: b.Effect == effectForbid, Principal: b.Principal.uid(), Resource: b.Resource.uid(),
		CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt,
	}
	for _, a := range b.Actions {
		p.Actions = append(p.Actions, a.uid())
	}
	return p
}

// uid is the zero UID for nil.
func (b *entityBody) uid() types.EntityUID {
	if b == nil {
		return types.EntityUID{}
	}
	return types.NewEntityUID(types.EntityType(b.Type), types.String(b.ID))
}

// newEntityBody is nil for the zero UID: no entity is named.
func newEntityBody(uid types.EntityUID) *entityBody {
	if uid.IsZero() {
		return nil
	}
	return &entityBody{Type: string(uid.Type), ID: string(uid.ID)}
}

// nameBody is what a name stands for. The item's key makes the name unique: who takes it expects it absent.
type nameBody struct {
	V      int            `json:"v"`
	Policy copse.PolicyID `json:"policy"` // or the id of a template
}

// rowBody is a policy store's row in the directory, by which it exists: whose it is, and what the operator says
// of it. What decisions are made by is in the policy store's own partition, where a commit can expect it.
type rowBody struct {
	V           int               `json:"v"`
	Tenant      copse.TenantID    `json:"tenant,omitzero"`
	Incarnation copse.Incarnation `json:"incarnation"`
	CreatedAt   time.Time         `json:"createdAt"`
	Plan        string            `json:"plan,omitzero"`      // empty: default
	Protected   bool              `json:"protected,omitzero"` // from deletion
	// Aliases are all names that have an item, or that history may still know, as this policy store's.
	Aliases []string `json:"aliases,omitempty"`
	// ClientToken is the id of the item that remembers the making; see once.
	ClientToken string `json:"clientToken,omitzero"`
}

// aliasBody stays after a deletion for as long as the name is reserved; DeletedAt tells then.
type aliasBody struct {
	V           int                 `json:"v"`
	PolicyStore copse.PolicyStoreID `json:"policyStore"`
	Incarnation copse.Incarnation   `json:"incarnation"`
	CreatedAt   time.Time           `json:"createdAt"`
	DeletedAt   time.Time           `json:"deletedAt,omitzero"`
}

// planBody is a plan that an operator has put; the built-in ones have no item until somebody changes them.
type planBody struct {
	V           int        `json:"v"`
	Description string     `json:"description,omitzero"`
	Quotas      quotasBody `json:"quotas"`
	UpdatedAt   time.Time  `json:"updatedAt"`
}

// quotasBody has the members of Quotas, in their order: one is converted into the other.
type quotasBody struct {
	Templates          int            `json:"templates"`
	Aliases            int            `json:"aliases"`
	IdentitySources    int            `json:"identitySources"`
	Namespaces         int            `json:"namespaces"`
	PolicyBytes        int            `json:"policyBytes"`
	SchemaBytes        int            `json:"schemaBytes"`
	ScopeBytes         int            `json:"scopeBytes"`
	DecisionsPerSecond int            `json:"decisionsPerSecond"`
	WritesPerSecond    int            `json:"writesPerSecond"`
	Operations         map[string]int `json:"operations,omitempty"`
}

// erasureBody is all that a restart needs to finish an erasure.
type erasureBody struct {
	V           int                 `json:"v"`
	PolicyStore copse.PolicyStoreID `json:"policyStore"`
	Incarnation copse.Incarnation   `json:"incarnation"`
	Forget      []keyBody           `json:"forget"` // keys of the directory whose history names the policy store or its tenant
	StartedAt   time.Time           `json:"startedAt"`
}

// keyBody is a storage.Key in JSON.
type keyBody struct {
	Kind storage.Kind `json:"kind"`
	ID   string       `json:"id"`
}

// encode can't fail for the bodies above, whose strings were checked to be UTF-8; a failure is a
// defect and must not be stored.
func encode(body any) ([]byte, error) {
	out, err := json.Marshal(body)
	if err != nil {
		return nil, &copse.Error{Kind: copse.Internal, Detail: "a body can't be encoded", Err: err}
	}
	return out, nil
}

// decode reads a stored body. Unknown members are refused: writing the body back would drop them.
func decode(item storage.Item, into any) error {
	if err := json.Unmarshal(item.Body, into, json.RejectUnknownMembers(true)); err != nil {
		return undecodable(item, err)
	}
	version := 0
	// The version of a body that is not listed here stays 0, so that decoding it fails.
	switch b := into.(type) {
	case *settingsBody:
		version = b.V
	case *schemaBody:
		version = b.V
	case *policyBody:
		version = b.V
	case *nameBody:
		version = b.V
	case *identitySourceBody:
		version = b.V
	case *rowBody:
		version = b.V
	case *erasureBody:
		version = b.V
	case *tokenBody:
		version = b.V
	case *tagsBody:
		version = b.V
	case *aliasBody:
		version = b.V
	case *planBody:
		version = b.V
	case *templateBody:
		version = b.V
	case *unlinkingBody:
		version = b.V
	}
	if version != bodyVersion {
		return undecodable(item, fmt.Errorf("body version %d, this copse knows %d", version, bodyVersion))
	}
	return nil
}

// undecodable is Internal: what is stored is not the caller's to put right. It names the item, which is logged
// and not shown.
func undecodable(item storage.Item, err error) error {
	return &copse.Error{Kind: copse.Internal,
		Detail: fmt.Sprintf("stored %s %q can't be read", item.Kind, item.ID), Err: err}
}

// now is the time as it is stored and shown: UTC, in microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
