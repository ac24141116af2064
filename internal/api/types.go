package api

import "time"

// The wire types of the control API. The server decodes and encodes them, the CLI imports them, and
// the OpenAPI document is made from them, so the three can't disagree.
//
// A member without omitempty or omitzero is required in a request and always present in an answer.

// Settings of a policy store that can change an answer. Given at all, they are given whole: a
// safety setting left out would otherwise be a guess.
type Settings struct {
	Validation       string `json:"validation" enum:"STRICT,OFF" doc:"STRICT refuses policies that disagree with the schema; OFF takes every policy that parses." example:"STRICT"`
	CheckRequests    bool   `json:"checkRequests" doc:"Refuse decision requests whose types, attributes or context disagree with the schema."`
	ForbidErrorsDeny bool   `json:"forbidErrorsDeny" doc:"Deny when a forbid policy fails to evaluate. Cedar itself skips such a policy."`
}

// SchemaText is a schema on its way in, in exactly one of the two syntaxes.
type SchemaText struct {
	Cedar string `json:"cedar,omitempty" doc:"The schema in Cedar syntax. Exactly one of cedar and json is given." example:"entity User; entity Invoice; action view appliesTo { principal: User, resource: Invoice };"`
	JSON  string `json:"json,omitempty" doc:"The text of the schema in Cedar's JSON syntax. Exactly one of cedar and json is given."`
}

// PolicyText is a named policy on its way in.
type PolicyText struct {
	Name        string `json:"name" minLength:"1" maxLength:"145" pattern:"^[a-zA-Z0-9/_-]+$" doc:"Unique in the policy store. The same name keeps its policy id." example:"owners-may-view"`
	Statement   string `json:"statement,omitempty" doc:"Exactly one Cedar policy. Exactly one of statement and link is given." example:"permit (principal, action == Action::\"view\", resource) when { resource.owner == principal };"`
	Link        *Link  `json:"link,omitempty" doc:"A template with its slots filled, instead of a statement."`
	Description string `json:"description,omitempty" maxLength:"150" doc:"For people. A link has none."`
}

// Link makes a policy of a template: an entity for each slot the template has, and for no other.
type Link struct {
	Template   string     `json:"template,omitempty" doc:"The template's name, or empty in an answer when it has none. In a request exactly one of template and templateId is given, or the two of an answer." example:"viewers"`
	TemplateID string     `json:"templateId,omitempty" doc:"The template's id." example:"9wYixMplbbZQb5fcZHyJhY"`
	Principal  *EntityUID `json:"principal,omitempty" doc:"What stands in ?principal."`
	Resource   *EntityUID `json:"resource,omitempty" doc:"What stands in ?resource."`
}

// EntityUID names an entity.
type EntityUID struct {
	Type string `json:"type" minLength:"1" maxLength:"200" example:"User"`
	ID   string `json:"id" maxLength:"612" example:"alice"`
}

// TemplateText is a named policy template on its way in.
type TemplateText struct {
	Name        string `json:"name" minLength:"1" maxLength:"145" pattern:"^[a-zA-Z0-9/_-]+$" doc:"Unique among the templates of the policy store. The same name keeps its id." example:"viewers"`
	Statement   string `json:"statement" minLength:"1" doc:"Exactly one Cedar policy template, with ?principal or ?resource in its scope; principal and resource are both constrained." example:"permit (principal == ?principal, action == Action::\"view\", resource in ?resource);"`
	Description string `json:"description,omitempty" maxLength:"150" doc:"For people."`
}

// Template is a policy template of a policy store.
type Template struct {
	TemplateID  string    `json:"templateId" example:"9wYixMplbbZQb5fcZHyJhY"`
	Name        string    `json:"name,omitempty" example:"viewers"`
	Statement   string    `json:"statement"`
	Description string    `json:"description,omitempty"`
	Effect      string    `json:"effect" enum:"permit,forbid" example:"permit"`
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt"`
}

// SchemaCheck says what of a policy store a schema breaks.
type SchemaCheck struct {
	Revision uint64         `json:"revision" doc:"Of the policy store, at which it was checked."`
	Checked  int            `json:"checked" doc:"How many policies and templates there are."`
	Broken   []BrokenPolicy `json:"broken" nullable:"false" doc:"Those that STRICT would refuse: templates first, then by name."`
	More     int            `json:"more,omitzero" doc:"How many more there are than are listed."`
	// A check that could take any time could be had by anybody who may read.
	Unchecked int `json:"unchecked,omitzero" doc:"How many were not looked at, because the check's budget of validation steps ended before them."`
}

// BrokenPolicy is a policy or template that disagrees with a schema.
type BrokenPolicy struct {
	Kind     string       `json:"kind" enum:"policy,template"`
	ID       string       `json:"id" example:"9wYixMplbbZQb5fcZHyJhY"`
	Name     string       `json:"name,omitempty" example:"owners-may-view"`
	Findings []ErrorField `json:"findings" nullable:"false" doc:"What is wrong, and where in its text."`
}

// CreateTenantRequest onboards a tenant with a policy store of its own.
type CreateTenantRequest struct {
	Tenant        string         `json:"tenant" minLength:"1" maxLength:"128" pattern:"^[a-zA-Z0-9][a-zA-Z0-9._:@-]*$" doc:"The tenant's id, compared byte by byte. It is what the tenant claim of its users' tokens says." example:"acme"`
	Description   string         `json:"description,omitempty" maxLength:"150" doc:"Description of the policy store, for people."`
	Settings      *Settings      `json:"settings,omitempty" doc:"Left out: STRICT with requests checked when there is a schema, else OFF."`
	Schema        *SchemaText    `json:"schema,omitempty" doc:"The first schema."`
	Templates     []TemplateText `json:"templates,omitempty" nullable:"false" maxItems:"10000" doc:"The first policy templates."`
	Policies      []PolicyText   `json:"policies,omitempty" nullable:"false" maxItems:"10000" doc:"The first policies, committed in the same moment as the policy store itself."`
	PolicyStoreID string         `json:"policyStoreId,omitempty" maxLength:"200" doc:"A policy store that belongs to no tenant, to be this one's as it is. Then nothing else but tenant may be given."`
}

// Tenant is a directory row.
type Tenant struct {
	Tenant        string    `json:"tenant" doc:"The tenant's id." example:"acme"`
	State         string    `json:"state" enum:"ACTIVE,SUSPENDED" doc:"Decisions of a suspended tenant are refused." example:"ACTIVE"`
	PolicyStoreID string    `json:"policyStoreId" doc:"The policy store that decides for this tenant." example:"C7v5xMplfFH3i3e4Jrzb1a"`
	CreatedAt     time.Time `json:"createdAt" doc:"When the tenant was onboarded."`
	UpdatedAt     time.Time `json:"updatedAt" doc:"When its state last changed."`
}

// TenantList is one page of tenants.
type TenantList struct {
	Tenants   []Tenant `json:"tenants" nullable:"false" doc:"In order of id. A page may be short while nextToken is set."`
	NextToken string   `json:"nextToken,omitempty" doc:"Present when there are more; send it back as nextToken."`
}

// Issuer is an identity provider the operator trusts, and the tenants it may speak for.
type Issuer struct {
	ID  string `json:"id,omitempty" doc:"Derived from the URL by copse. In a request it is left out, or the id of the path."`
	URL string `json:"url" minLength:"1" maxLength:"2048" doc:"The iss claim of its tokens, byte for byte. One registration per URL; an update can't change it." example:"https://idp.example.com/acme"`

	Tenants    []string `json:"tenants,omitempty" nullable:"false" doc:"The tenants it may speak for; each exists already. Neither tenants nor allTenants: nobody." example:"acme"`
	AllTenants bool     `json:"allTenants,omitzero" doc:"It may speak for every tenant, also those made later."`

	TokenType  string   `json:"tokenType" enum:"access,id" doc:"The one type of token that is accepted." example:"access"`
	Audiences  []string `json:"audiences,omitempty" nullable:"false" doc:"Values of the aud claim that are accepted. At least one of audiences and clientIds is given."`
	ClientIDs  []string `json:"clientIds,omitempty" nullable:"false" doc:"Values of the client_id claim that are accepted, for tokens that name their client instead of an audience."`
	Algorithms []string `json:"algorithms,omitempty" nullable:"false" doc:"Signature algorithms that are accepted; never a symmetric one. Left out: copse's default." example:"RS256"`

	TenantClaim string `json:"tenantClaim,omitempty" doc:"The claim that names the tenant: a claim name, or a JSON pointer when it starts with a slash. Exactly one of tenantClaim and fixedTenant is given." example:"tenant_id"`
	FixedTenant string `json:"fixedTenant,omitempty" doc:"The one tenant of every token of this issuer."`

	PrincipalType     string `json:"principalType" minLength:"1" maxLength:"200" doc:"Cedar entity type of the principal." example:"User"`
	PrincipalIDClaim  string `json:"principalIdClaim,omitempty" doc:"The claim that names the principal. Left out: sub." example:"sub"`
	PrincipalIDPrefix string `json:"principalIdPrefix,omitempty" maxLength:"100" doc:"Put before the id, with a bar between."`
	GroupType         string `json:"groupType,omitempty" maxLength:"200" doc:"Cedar entity type of the principal's groups; given together with groupClaim." example:"Role"`
	GroupClaim        string `json:"groupClaim,omitempty" doc:"The claim that lists the principal's groups." example:"roles"`

	EmailDomains []string `json:"emailDomains,omitempty" nullable:"false" doc:"E-mail domains this issuer may vouch for."`
	SameSubjects bool     `json:"sameSubjects,omitzero" doc:"States that its subjects are the same people as another issuer's of the same tenant. Without it a second issuer needs another prefix, or a principal type and a group type of its own."`

	Revision  uint64    `json:"revision,omitzero" doc:"Set by copse; changes with each update. In an update: left out, or the revision that was read; then 409 if the registration changed since."`
	CreatedAt time.Time `json:"createdAt,omitzero" doc:"Set by copse, ignored in a request."`
	UpdatedAt time.Time `json:"updatedAt,omitzero" doc:"Set by copse, ignored in a request."`
}

// IssuerList is one page of issuers.
type IssuerList struct {
	Issuers   []Issuer `json:"issuers" nullable:"false" doc:"In order of id. A page may be short while nextToken is set."`
	NextToken string   `json:"nextToken,omitempty" doc:"Present when there are more; send it back as nextToken."`
}

// PolicyStore describes a policy store.
type PolicyStore struct {
	PolicyStoreID      string              `json:"policyStoreId" example:"C7v5xMplfFH3i3e4Jrzb1a"`
	Tenant             string              `json:"tenant,omitempty" doc:"Whose it is. Absent: the operator's own." example:"acme"`
	Settings           Settings            `json:"settings"`
	Description        string              `json:"description"`
	DeletionProtection bool                `json:"deletionProtection" doc:"While it is on, neither the policy store nor its tenant nor its aliases can be deleted."`
	Plan               string              `json:"plan" doc:"The plan it is on. One that was deleted stands for the plan default." example:"default"`
	DecisionLog        DecisionLogSettings `json:"decisionLog" doc:"How its decisions are logged."`
	Revision           uint64              `json:"revision" doc:"Counts its commits." example:"3"`
	Policies           int                 `json:"policies" doc:"How many policies it holds." example:"12"`
	CreatedAt          time.Time           `json:"createdAt"`
	UpdatedAt          time.Time           `json:"updatedAt"`
}

// DecisionLogSettings say how decisions of a policy store are logged.
type DecisionLogSettings struct {
	Full    string   `json:"full" enum:"drop,wait" doc:"Of a decision that the log can't take: drop gives it and counts it as lost; wait gives none before its line is on disk, and refuses it if that can't be."`
	Keep    []string `json:"keep" nullable:"false" doc:"Paths whose values are in the log. Without rules nothing of context and attributes is."`
	Hash    []string `json:"hash" nullable:"false" doc:"Paths whose values are in the log as keyed hashes: equal within the policy store, and nowhere else."`
	Drop    []string `json:"drop" nullable:"false" doc:"Paths that are not in the log although a shorter path is kept or hashed."`
	HashIDs []string `json:"hashIds" nullable:"false" enum:"principal,resource" doc:"Whose ids are hashed."`
}

// UpdateDecisionLog changes them; what is left out stays, a list that is given replaces the former.
type UpdateDecisionLog struct {
	Full    *string   `json:"full,omitzero" nullable:"false" enum:"drop,wait"`
	Keep    *[]string `json:"keep,omitzero" nullable:"false" maxItems:"64" example:"[\"context.ip\",\"principal.department\"]"`
	Hash    *[]string `json:"hash,omitzero" nullable:"false" maxItems:"64"`
	Drop    *[]string `json:"drop,omitzero" nullable:"false" maxItems:"64"`
	HashIDs *[]string `json:"hashIds,omitzero" nullable:"false" maxItems:"2" enum:"principal,resource"`
}

// UpdatePolicyStoreRequest changes a policy store; what is left out stays.
type UpdatePolicyStoreRequest struct {
	Validation         *string            `json:"validation,omitzero" nullable:"false" enum:"STRICT,OFF" doc:"STRICT refuses policies that disagree with the schema; OFF takes every policy that parses."`
	CheckRequests      *bool              `json:"checkRequests,omitzero" nullable:"false" doc:"Refuse decision requests that disagree with the schema."`
	ForbidErrorsDeny   *bool              `json:"forbidErrorsDeny,omitzero" nullable:"false" doc:"Deny when a forbid policy fails to evaluate."`
	Description        *string            `json:"description,omitzero" nullable:"false" maxLength:"150" doc:"For people."`
	DeletionProtection *bool              `json:"deletionProtection,omitzero" nullable:"false" doc:"Refuse to delete the policy store, its tenant and its aliases."`
	Plan               *string            `json:"plan,omitzero" nullable:"false" maxLength:"64" doc:"The plan whose quotas it has." example:"default"`
	DecisionLog        *UpdateDecisionLog `json:"decisionLog,omitzero" nullable:"false" doc:"How its decisions are logged."`
}

// PolicyStoreList is one page of policy stores.
type PolicyStoreList struct {
	PolicyStores []PolicyStore `json:"policyStores" nullable:"false" doc:"Those the caller's key covers, in order of id. A page may be short while nextToken is set."`
	NextToken    string        `json:"nextToken,omitempty" doc:"Present when there are more; send it back as nextToken."`
}

// Quotas are what one policy store may hold, and how often it may be asked and written.
type Quotas struct {
	Templates          int            `json:"templates" minimum:"0" doc:"Policy templates." example:"40"`
	Aliases            int            `json:"aliases" minimum:"0" maximum:"100" doc:"Aliases; those whose names are still reserved count." example:"10"`
	IdentitySources    int            `json:"identitySources" minimum:"0" maximum:"1" doc:"Identity sources." example:"1"`
	Namespaces         int            `json:"namespaces" minimum:"1" doc:"Namespaces of the schema." example:"100"`
	PolicyBytes        int            `json:"policyBytes" minimum:"1" maximum:"10000" doc:"Bytes of one policy or template." example:"10000"`
	SchemaBytes        int            `json:"schemaBytes" minimum:"1" maximum:"100000" doc:"Bytes of the schema." example:"100000"`
	ScopeBytes         int            `json:"scopeBytes" minimum:"1" doc:"Bytes of all policies that name one resource, or none." example:"200000"`
	DecisionsPerSecond int            `json:"decisionsPerSecond,omitzero" minimum:"0" doc:"Each item of a batch is one. Absent: no limit." example:"5000"`
	WritesPerSecond    int            `json:"writesPerSecond,omitzero" minimum:"0" doc:"Absent: no limit." example:"100"`
	Operations         map[string]int `json:"operations,omitempty" doc:"Calls per second of single operations, by AVP's names. They count against these instead of the two rates above."`
}

// Plan is a named set of quotas.
type Plan struct {
	Name        string    `json:"name" example:"default"`
	Description string    `json:"description,omitempty"`
	Quotas      Quotas    `json:"quotas"`
	BuiltIn     bool      `json:"builtIn,omitzero" doc:"It can be changed, and deleting it brings back what is built in."`
	UpdatedAt   time.Time `json:"updatedAt,omitzero" doc:"Absent: as it is built in."`
}

// PutPlanRequest makes or changes a plan. The quotas are given whole.
type PutPlanRequest struct {
	Description string `json:"description,omitempty" maxLength:"150" doc:"For people."`
	Quotas      Quotas `json:"quotas"`
}

// PlanList are all plans.
type PlanList struct {
	Plans []Plan `json:"plans" nullable:"false" doc:"In order of name."`
}

// Schema is a stored schema.
type Schema struct {
	JSON       string   `json:"json" doc:"The text of the schema in Cedar's JSON syntax."`
	Cedar      string   `json:"cedar,omitempty" doc:"The source, when it was put in Cedar syntax."`
	Namespaces []string `json:"namespaces" nullable:"false" doc:"The namespaces it declares."`
}

// Policy is a stored policy.
type Policy struct {
	PolicyID    string    `json:"policyId" example:"9wYixMplbbZQb5fcZHyJhY"`
	Name        string    `json:"name,omitempty" example:"owners-may-view"`
	Statement   string    `json:"statement,omitempty" doc:"Absent from a link."`
	Link        *Link     `json:"link,omitempty" doc:"The template it is made of, and what stands in the slots."`
	Description string    `json:"description,omitempty"`
	Effect      string    `json:"effect" enum:"permit,forbid" example:"permit"`
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt"`
}

// Contents is a policy store's schema and policies at one revision.
type Contents struct {
	Revision  uint64     `json:"revision" doc:"Also the ETag of the answer, to be sent back as If-Match." example:"3"`
	Schema    *Schema    `json:"schema,omitempty"`
	Templates []Template `json:"templates,omitempty" nullable:"false" doc:"In order of name, then id."`
	Policies  []Policy   `json:"policies" nullable:"false" doc:"In order of name, then id."`
}

// PutContentsRequest replaces schema and named policies in one validated commit.
type PutContentsRequest struct {
	Schema    *SchemaText     `json:"schema,omitempty" doc:"Left out: the schema stays as it is."`
	Templates *[]TemplateText `json:"templates,omitzero" maxItems:"10000" doc:"The named templates as they shall be: those that are not listed are deleted, and their links with them. Left out: all templates stay as they are."`
	Policies  []PolicyText    `json:"policies" nullable:"false" maxItems:"10000" doc:"The named policies as they shall be: named policies that are not listed are deleted."`
	Prune     bool            `json:"prune,omitzero" doc:"Also delete the policies that have no name. Otherwise they stay and are listed in the answer."`
}

// PolicyRef points at a policy.
type PolicyRef struct {
	PolicyID string `json:"policyId" example:"9wYixMplbbZQb5fcZHyJhY"`
	Name     string `json:"name,omitempty" example:"owners-may-view"`
}

// ContentsResult says what PUT contents did.
type ContentsResult struct {
	Revision uint64      `json:"revision" doc:"After the commit; also the ETag." example:"4"`
	Policies []PolicyRef `json:"policies" nullable:"false" doc:"The named policies as they are now."`
	Created  int         `json:"created" example:"1"`
	Updated  int         `json:"updated" example:"2"`
	Deleted  int         `json:"deleted" example:"0"`
	Kept     []PolicyRef `json:"kept" nullable:"false" doc:"Policies without a name, left alone."`
}

// KeyScope is what an access key covers: exactly one of its members is given.
type KeyScope struct {
	All           bool   `json:"all,omitzero" doc:"Everything."`
	Tenant        string `json:"tenant,omitempty" doc:"The policy store of this tenant." example:"acme"`
	PolicyStoreID string `json:"policyStoreId,omitempty" doc:"This policy store."`
}

// CreateKeyRequest asks for an access key.
type CreateKeyRequest struct {
	Description string    `json:"description,omitempty" maxLength:"150" doc:"For people." example:"acme's CI"`
	Scope       KeyScope  `json:"scope" doc:"What the key covers."`
	Verbs       []string  `json:"verbs" nullable:"false" minItems:"1" enum:"read,write,decide,admin" doc:"What it may do there. admin is for tenants, issuers and keys, and needs the scope all." example:"read"`
	ExpiresAt   time.Time `json:"expiresAt,omitzero" doc:"Left out: never."`
}

// Key describes an access key, without its secret.
type Key struct {
	ID          string    `json:"id"`
	Description string    `json:"description,omitempty"`
	Scope       KeyScope  `json:"scope"`
	Verbs       []string  `json:"verbs" nullable:"false" enum:"read,write,decide,admin"`
	CreatedAt   time.Time `json:"createdAt"`
	ExpiresAt   time.Time `json:"expiresAt,omitzero" doc:"Absent: never."`
	LastUsedAt  time.Time `json:"lastUsedAt,omitzero" doc:"When it last opened anything, to the second; a server that was killed may have lost the last 15 minutes. Absent: it was not used yet."`
}

// KeyExpiry is when a key ends.
type KeyExpiry struct {
	ExpiresAt time.Time `json:"expiresAt,omitzero" doc:"In the future."`
	Never     bool      `json:"never,omitzero" doc:"Instead of expiresAt."`
}

// RotateKeyRequest replaces a key.
type RotateKeyRequest struct {
	OverlapSeconds int64 `json:"overlapSeconds" minimum:"0" maximum:"2592000" doc:"How long the old key stays good: at most 30 days. Never longer than it would have." example:"86400"`
}

// RotatedKey is a new key and the one it replaces.
type RotatedKey struct {
	CreatedKey
	Replaces Key `json:"replaces" doc:"The old key, with the time it expires."`
}

// CreatedKey is a new key with its secret, which can't be read again.
type CreatedKey struct {
	Key
	Secret     string `json:"secret" doc:"Shown once. With the id it signs requests (AWS Signature Version 4)."`
	Credential string `json:"credential" doc:"Id and secret as one bearer credential." example:"copse_<id>_<secret>"`
}

// KeyList is one page of access keys.
type KeyList struct {
	Keys      []Key  `json:"keys" nullable:"false" doc:"In order of id. A page may be short while nextToken is set."`
	NextToken string `json:"nextToken,omitempty" doc:"Present when there are more; send it back as nextToken."`
}

// ErrorBody is every answer that is not a success.
type ErrorBody struct {
	Error ErrorInfo `json:"error"`
}

// ErrorInfo says what was wrong, where, and what to do.
type ErrorInfo struct {
	Kind      string       `json:"kind" enum:"Internal,Invalid,Unauthenticated,Denied,NotFound,Conflict,QuotaExceeded,TooManyTags,Throttled,InvalidState,Unavailable" example:"Invalid"`
	Message   string       `json:"message" doc:"For people."`
	Resource  string       `json:"resource,omitempty" doc:"What it is about." example:"POLICY"`
	ID        string       `json:"id,omitempty" doc:"Which one."`
	Fields    []ErrorField `json:"fields,omitempty" nullable:"false" doc:"Findings that have a place."`
	RequestID string       `json:"requestId,omitempty" doc:"Quote it to the operator: it is in the server's log. Absent only from the 403 of POST /v1/authorize, so that no two of them differ."`
}

// ErrorField is one finding.
type ErrorField struct {
	Path    string `json:"path" doc:"Member of the request." example:"policies[0].statement"`
	Message string `json:"message"`
	Line    int    `json:"line,omitzero" doc:"Position inside the text at path, from 1."`
	Column  int    `json:"column,omitzero" doc:"From 1, in bytes."`
}

// MemberRef names a member: a subject or a client of an issuer, or an invited address.
type MemberRef struct {
	Issuer   string `json:"issuer,omitempty" maxLength:"2048" doc:"The URL of the issuer whose subject or client it is, byte for byte." example:"https://idp.example.com"`
	Subject  string `json:"subject,omitempty" maxLength:"1024" doc:"The token's sub." example:"alice"`
	ClientID string `json:"clientId,omitempty" maxLength:"1024" doc:"Of a machine that asks in its own name, instead of a subject."`
	Email    string `json:"email,omitempty" maxLength:"254" doc:"An invitation, instead of issuer and subject: whoever signs in with this address, verified, at an issuer that is registered for its domain becomes the member."`
}

// MemberInput is what a tenant says of a member.
type MemberInput struct {
	MemberRef
	Roles      []string          `json:"roles,omitempty" nullable:"false" maxItems:"100" doc:"What the token's group claim says."`
	Attributes map[string]string `json:"attributes,omitempty" doc:"Further claims. Those of the protocol and of the provider can't be set."`
}

// PutMembersRequest is the body of putMembers.
type PutMembersRequest struct {
	Members []MemberInput `json:"members" nullable:"false" minItems:"1" maxItems:"500"`
}

// PutMembersAnswer says what was written.
type PutMembersAnswer struct {
	Written int           `json:"written"`
	Errors  []MemberError `json:"errors" nullable:"false"`
}

// MemberError is a member that was not written.
type MemberError struct {
	Index int       `json:"index" doc:"In the request, from 0."`
	Error ErrorInfo `json:"error"`
}

// Member is a member of a tenant, or an invitation.
type Member struct {
	MemberRef
	Roles      []string          `json:"roles" nullable:"false"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Since      time.Time         `json:"since"`
}

// MemberList is a page.
type MemberList struct {
	Members   []Member `json:"members" nullable:"false"`
	NextToken string   `json:"nextToken,omitempty" doc:"Of the next page; absent on the last one."`
}

// SetActiveRequest says which tenant a member's tokens are for.
type SetActiveRequest struct {
	MemberRef
	Client string `json:"client,omitempty" maxLength:"1024" doc:"At this client only. Left out: at all for which nothing else was chosen."`
	Tenant string `json:"tenant" maxLength:"128" example:"acme"`
}

// TokenHookRequest says who a token is about to be issued for.
type TokenHookRequest struct {
	Issuer        string   `json:"issuer" minLength:"1" maxLength:"2048" doc:"The provider's issuer URL, as it will be in the token."`
	Subject       string   `json:"subject,omitempty" maxLength:"1024" doc:"Left out where a machine asks in its own name."`
	ClientID      string   `json:"clientId,omitempty" maxLength:"1024"`
	Email         string   `json:"email,omitempty" maxLength:"254"`
	EmailVerified bool     `json:"emailVerified,omitempty" doc:"By the provider. An invitation is redeemed by a verified address only."`
	Claims        []string `json:"claims,omitempty" nullable:"false" maxItems:"1000" doc:"Names of the claims that the token would have."`
}

// TokenHookAnswer is what the token must say.
type TokenHookAnswer struct {
	Tenant   string         `json:"tenant"`
	Claims   map[string]any `json:"claims" doc:"To set, in place of what the token would have said."`
	Suppress []string       `json:"suppress" nullable:"false" doc:"To leave out: those of the request's claims that could be taken for one of copse's."`
}

// GatewayRequest is the body of POST /v1/authorize/request.
type GatewayRequest struct {
	Method  string            `json:"method" example:"GET"`
	Target  string            `json:"target" doc:"Path and query as the client sent them." example:"/invoices/17"`
	Headers map[string]string `json:"headers,omitempty" doc:"Those that routes take context from."`
	Cached  bool              `json:"cached,omitempty" doc:"The gateway may use the answer again; no signed context is then made."`
}

// GatewayAnswer is the 200 to it.
type GatewayAnswer struct {
	Decision      string            `json:"decision" enum:"ALLOW,DENY"`
	Tenant        string            `json:"tenant"`
	Principal     GatewayPrincipal  `json:"principal"`
	DecisionID    string            `json:"decisionId"`
	Route         string            `json:"route" doc:"The pattern that matched." example:"GET /invoices/{id}"`
	PolicyStoreID string            `json:"policyStoreId"`
	Revision      uint64            `json:"revision"`
	Reason        string            `json:"reason"`
	Expires       time.Time         `json:"expires" doc:"When the token expires: the answer is good for no longer."`
	Headers       map[string]string `json:"headers" doc:"To set for the service in place of the client's; none on a DENY."`
}

// GatewayPrincipal is whose token it is.
type GatewayPrincipal struct {
	Type string `json:"type" example:"User"`
	ID   string `json:"id" example:"alice"`
}

// AuthorizeRequest is the body of POST /v1/authorize. The principal is the user of the token.
type AuthorizeRequest struct {
	Action   AuthorizeAction    `json:"action"`
	Resource AuthorizeEntity    `json:"resource"`
	Context  *AuthorizeContext  `json:"context,omitzero"`
	Entities *AuthorizeEntities `json:"entities,omitempty" doc:"Resources and their ancestors. The principal and its groups come from the token, and are refused here."`
	Explain  bool               `json:"explain,omitempty" doc:"Also answer what each part of the policies came to. Needs an access key in X-Copse-Key with decide on the policy store."`
}

// AuthorizeAction is what the user wants to do, in Cedar's words or in AVP's.
type AuthorizeAction struct {
	Type       string `json:"type,omitempty" maxLength:"200" doc:"Left out: Action." example:"Action"`
	ID         string `json:"id,omitempty" maxLength:"512" example:"view"`
	ActionType string `json:"actionType,omitempty" maxLength:"200" doc:"AVP's word for type."`
	ActionID   string `json:"actionId,omitempty" maxLength:"512" doc:"AVP's word for id."`
}

// AuthorizeEntity is what it is wanted on, in Cedar's words or in AVP's.
type AuthorizeEntity struct {
	Type       string `json:"type,omitempty" maxLength:"200" example:"Invoice"`
	ID         string `json:"id,omitempty" maxLength:"612" example:"inv-17"`
	EntityType string `json:"entityType,omitempty" maxLength:"200" doc:"AVP's word for type."`
	EntityID   string `json:"entityId,omitempty" maxLength:"612" doc:"AVP's word for id."`
}

// AuthorizeContext is the request's context in one of two formats.
type AuthorizeContext struct {
	ContextMap map[string]any `json:"contextMap,omitempty" doc:"In AVP's value format. Exactly one of contextMap and cedarJson is given."`
	CedarJSON  any            `json:"cedarJson,omitempty" doc:"A record in Cedar's JSON format, or a string that holds it."`
}

// AuthorizeEntities are the request's entities in one of two formats.
type AuthorizeEntities struct {
	EntityList []any `json:"entityList,omitempty" nullable:"false" doc:"In AVP's entity format. Exactly one of entityList and cedarJson is given."`
	CedarJSON  any   `json:"cedarJson,omitempty" doc:"An array in Cedar's JSON entity format, or a string that holds it."`
}

// AuthorizeResponse is the decision. The members from determiningPolicies on are present only for
// callers that also present an access key with decide on the policy store.
type AuthorizeResponse struct {
	Decision      string `json:"decision" enum:"ALLOW,DENY" example:"ALLOW"`
	Tenant        string `json:"tenant" doc:"Whose policies decided: the tenant the token names." example:"acme"`
	PolicyStoreID string `json:"policyStoreId" example:"C7v5xMplfFH3i3e4Jrzb1a"`
	Revision      uint64 `json:"revision" doc:"Of the policy store, at the decision." example:"3"`
	Reason        string `json:"reason" enum:"permitted by policy,denied by policy,no policy applied,a forbid failed,budget exceeded" doc:"A forbid failed: it could not be evaluated, and the policy store denies then (forbidErrorsDeny)." example:"permitted by policy"`

	DeterminingPolicies []AuthorizePolicy `json:"determiningPolicies,omitzero" nullable:"false" doc:"The policies that made the decision; empty when none applied."`
	Errors              []AuthorizeError  `json:"errors,omitzero" nullable:"false" doc:"Policies that failed to evaluate. They are skipped, but that a forbid denies where the policy store says so (forbidErrorsDeny)."`
	Considered          *int              `json:"considered,omitempty" doc:"How many policies matched the request's principal, action and resource."`

	Explanation *AuthorizeExplanation `json:"explanation,omitempty" doc:"When explain was asked for."`
}

// AuthorizePolicy points at a determining policy.
type AuthorizePolicy struct {
	PolicyID   string `json:"policyId" example:"9wYixMplbbZQb5fcZHyJhY"`
	PolicyName string `json:"policyName,omitempty" example:"owners-may-view"`
}

// AuthorizeError is a policy that failed to evaluate.
type AuthorizeError struct {
	PolicyID         string `json:"policyId"`
	PolicyName       string `json:"policyName,omitempty"`
	ErrorDescription string `json:"errorDescription"`
}

// AuthorizeExplanation tells why the decision is what it is. It shows policies and values of the request.
type AuthorizeExplanation struct {
	Policies []AuthorizeExplained `json:"policies" nullable:"false" doc:"Those whose scope matched, at most 32, by id; behind them the others, if the policy store has no more than 32. Empty when the budget was exceeded."`
	LeftOut  int                  `json:"leftOut" doc:"How many matched and are over the limit."`
}

// AuthorizeExplained is what one policy came to.
type AuthorizeExplained struct {
	PolicyID       string          `json:"policyId"`
	PolicyName     string          `json:"policyName,omitempty"`
	Effect         string          `json:"effect" enum:"permit,forbid"`
	Outcome        string          `json:"outcome" enum:"true,false,error" doc:"Whether it applied; error: it failed, see errors."`
	Scope          []AuthorizePart `json:"scope" nullable:"false" doc:"Principal, action and resource of its head."`
	Conditions     []AuthorizePart `json:"conditions" nullable:"false" doc:"Its when and unless; without parts if the scope did not match."`
	TemplateLinked bool            `json:"templateLinked,omitempty" doc:"Lines and columns are those of its template's text."`
	Cut            bool            `json:"cut,omitempty" doc:"It has more than 64 parts; not all are shown."`
}

// AuthorizePart is a piece of a policy.
type AuthorizePart struct {
	Text     string           `json:"text" doc:"Cedar, on one line, cut at 200 bytes." example:"resource.amount <= 50000"`
	Line     int              `json:"line" doc:"Of its beginning in the policy's text, from 1."`
	Column   int              `json:"column" doc:"From 1, in bytes."`
	Outcome  string           `json:"outcome" enum:"true,false,error,not evaluated"`
	Operator string           `json:"operator,omitempty" enum:"when,unless,&&,||,!,if" doc:"What makes its parts one; absent from what is shown whole."`
	Error    string           `json:"error,omitempty" doc:"Why it could not be evaluated."`
	Values   []AuthorizeValue `json:"values,omitempty" nullable:"false" doc:"What its operands came to."`
	Parts    []AuthorizePart  `json:"parts,omitempty" nullable:"false"`
}

// AuthorizeValue is what an expression came to, cut at 200 bytes.
type AuthorizeValue struct {
	Text  string `json:"text" example:"resource.amount"`
	Value string `json:"value" doc:"As Cedar writes it." example:"90000"`
}

// Usage is what a policy store was used for lately.
type Usage struct {
	PolicyStoreID string `json:"policyStoreId"`
	Tenant        string `json:"tenant,omitempty" doc:"Whose it is; absent for one of the operator's own."`
	Decisions     int64  `json:"decisions" doc:"Each request of a batch is one."`
	Refusals      int64  `json:"refusals" doc:"Calls that came faster than the plan allows, and decisions that got no turn."`
	CompiledBytes int64  `json:"compiledBytes" doc:"What it weighs in memory, as of its last decision after a change."`
}

// UsageList has the policy stores that were used most.
type UsageList struct {
	Minutes      int     `json:"minutes" doc:"How far back it goes, the minute that has begun besides."`
	PolicyStores []Usage `json:"policyStores"`
}
