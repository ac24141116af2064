package copse

// Limits that hold for every policy store and request. AVP's figures where AVP has one
// (Amazon Verified Permissions user guide, "Quotas").
const (
	MaxPolicyBytes         = 10_000    // one policy's text
	MaxSchemaBytes         = 100_000   // one schema, in either syntax
	MaxPolicyBytesPerScope = 200_000   // all policies naming one resource, or none
	MaxRequestBytes        = 1_000_000 // a decision or AVP request
	MaxContentsBytes       = 16 << 20  // a whole policy store in one request
	MaxContentsWrites      = 10_000    // policies in one commit
	MaxPolicyStoreWeight   = 64 << 20  // a policy store: its text, and what it takes compiled, in memory
	MaxParents             = 100       // transitive parents of one entity in a request
	MaxEntityIDBytes       = 612
	MaxActionIDBytes       = 512
	MaxEntityTypeBytes     = 200
	MaxDescriptionBytes    = 150
	MaxKeysPerScope        = 100       // access keys of one tenant, and of one policy store
	MaxIssuersPerTenant    = 32        // issuers that list one tenant
	MaxIssuerBytes         = 256 << 10 // an issuer's registration as it is stored
	MaxTokenBytes          = 16 << 10  // a user's token, before it is parsed
)
