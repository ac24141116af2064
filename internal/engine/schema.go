package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/copse-authz/copse"
)

// Syntax is how a schema is written.
type Syntax uint8

// The two syntaxes of a Cedar schema.
const (
	SyntaxJSON Syntax = iota
	SyntaxCedar
)

// Schema is a schema that resolved.
type Schema struct {
	resolved   *resolved.Schema
	json       []byte
	namespaces []string
}

// ParseSchema reads a schema. file names it in error positions.
func ParseSchema(file string, text []byte, syntax Syntax) (*Schema, error) {
	if len(text) > copse.MaxSchemaBytes {
		return nil, sizeError(copse.ResourceSchema, file, len(text), copse.MaxSchemaBytes)
	}
	var parsed schema.Schema
	parsed.SetFilename(file)
	var err error
	if syntax == SyntaxJSON {
		err = parsed.UnmarshalJSON(text)
	} else {
		err = parsed.UnmarshalCedar(text)
	}
	if err != nil {
		return nil, schemaError(copse.Field{Path: file, Message: clip(err.Error())})
	}
	res, err := parsed.Resolve()
	if err != nil {
		return nil, schemaError(copse.Field{Path: file, Message: clip(err.Error())})
	}
	out, err := parsed.MarshalJSON()
	if err != nil {
		return nil, schemaError(copse.Field{Path: file, Message: clip(err.Error())})
	}
	s := &Schema{resolved: res, json: out}
	tree := parsed.AST()
	if len(tree.Entities)+len(tree.Enums)+len(tree.Actions)+len(tree.CommonTypes) > 0 {
		s.namespaces = append(s.namespaces, "")
	}
	for name := range tree.Namespaces {
		s.namespaces = append(s.namespaces, string(name))
	}
	slices.Sort(s.namespaces)
	return s, nil
}

// JSON is the schema in Cedar's JSON syntax.
func (s *Schema) JSON() []byte { return slices.Clone(s.json) }

// Namespaces it declares, sorted.
func (s *Schema) Namespaces() []string { return slices.Clone(s.namespaces) }
