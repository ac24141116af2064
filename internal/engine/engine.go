package engine

import (
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// STUB: signatures the rest of copse builds on. The engine's author moves each to its file.

// Syntax is how a schema is written.
type Syntax uint8

// The two syntaxes of a Cedar schema.
const (
	SyntaxJSON Syntax = iota
	SyntaxCedar
)

// Schema is a schema that resolved.
type Schema struct{}

// ParseSchema reads a schema. file names it in error positions.
func ParseSchema(file string, text []byte, syntax Syntax) (*Schema, error) { panic("stub") }

// JSON is the schema in Cedar's JSON syntax.
func (s *Schema) JSON() []byte { panic("stub") }

// Namespaces it declares, sorted.
func (s *Schema) Namespaces() []string { panic("stub") }

// Validate checks policies as STRICT demands. The error is a *copse.Error of kind Invalid with a
// Field for each finding, its Path the Path the policy was parsed with.
func (s *Schema) Validate(policies ...*Policy) error { panic("stub") }

// Policy is one static policy that parsed.
type Policy struct{}

// Scope is what a policy's head names; zero UIDs where it names no single entity.
type Scope struct {
	Principal, Resource types.EntityUID
	Actions             []types.EntityUID
}

// ParsePolicy reads exactly one policy. path names it in the Fields of an error: a file name or a
// member path.
func ParsePolicy(path string, text []byte) (*Policy, error) { panic("stub") }

// ParsePolicies reads a document of any number of policies.
func ParsePolicies(path string, text []byte) ([]*Policy, error) { panic("stub") }

// Text is the policy's source, comments included.
func (p *Policy) Text() string { panic("stub") }

// Forbids reports the effect.
func (p *Policy) Forbids() bool { panic("stub") }

// Scope tells what the policy's head names.
func (p *Policy) Scope() Scope { panic("stub") }

// Annotation returns the value of @name("value").
func (p *Policy) Annotation(name string) (string, bool) { panic("stub") }

// Source is a policy on its way into a snapshot.
type Source struct {
	Ref    copse.PolicyRef
	Policy *Policy
}

// Snapshot is a policy store compiled for deciding: immutable, at one revision.
type Snapshot struct{}

// Compile builds a snapshot. schema may be nil.
func Compile(schema *Schema, settings copse.Settings, policies []Source) (*Snapshot, error) {
	panic("stub")
}

// Weight is about how many bytes the snapshot holds in memory.
func (s *Snapshot) Weight() int64 { panic("stub") }

// Decide answers a request; PolicyStoreID, Incarnation and Revision are the caller's business.
func (s *Snapshot) Decide(req *copse.Request) (copse.Response, error) { panic("stub") }
