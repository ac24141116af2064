package policystore

import (
	"context"
	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// PutSchema replaces the schema. Stored policies are not checked again. Needs Write.
// It is checked by itself, its plan's limits included, and weighed with the policies there are, because a
// snapshot holds what the schema says of types. QuotaExceeded when that is too much. Policies that the new
// schema would refuse stay and go on deciding; [Service.CheckSchema] finds them.
func (s *Service) PutSchema(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text SchemaText) (Schema, error) {
	r, err := s.admit(ctx, c, access.Write, "PutSchema", id)
	if err != nil {
		return Schema{}, err
	}
	schema, err := parseSchema(text)
	if err != nil {
		return Schema{}, err
	}
	var body *schemaBody
	err = s.edit(ctx, operation{"PutSchema", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		// By the plan of now, which the ledger has read.
		if err := checkSchema(text, schema, l.quotas); err != nil {
			return change{}, err
		}
		at := now()
		body = newSchemaBody(text, schema, at, at)
		if l.schemaBody != nil {
			body.CreatedAt = l.schemaBody.CreatedAt
		}
		// With the policies there are: a schema that is small by itself may not fit beside them.
		weight, err := s.weigh(schema, l.settings.settings(), l.load(), func() ([]policySource, error) {
			return s.sourcesAt(ctx, id, l)
		})
		if err != nil {
			return change{}, err
		}
		if err := s.checkWeight(weight); err != nil {
			return change{}, err
		}
		encoded, err := encode(body)
		if err != nil {
			return change{}, err
		}
		write := storage.Write{Key: schemaKey, Body: encoded, Expect: storage.Version(l.schemaVersion)}
		// The new version is what later links compare their templates' with, so it must be in the ledger.
		return change{base: l, writes: []storage.Write{write}, settle: func(l *ledger, revision uint64) {
			l.schemaBody, l.schemaVersion, l.parsed, l.parseErr = body, revision, schema, nil
			l.weight = weight
		}}, nil
	})
	if err != nil {
		return Schema{}, err
	}
	return body.schema(), nil
}

// sourcesAt reads and parses the stored policies of exactly the ledger's revision.
// errStale when the partition has moved on; whoever prepares a change is then asked again.
func (s *Service) sourcesAt(ctx context.Context, id copse.PolicyStoreID, l *ledger) ([]policySource, error) {
	stored, err := s.readAt(ctx, id, l)
	if err != nil {
		return nil, err
	}
	return stored.sources(nil)
}

// readAt reads a policy store at exactly the ledger's revision.
// errStale when the partition has moved on: two revisions in one computation would weigh, or validate, what
// never existed together.
func (s *Service) readAt(ctx context.Context, id copse.PolicyStoreID, l *ledger) (*contents, error) {
	stored, err := s.read(ctx, id, l.incarnation)
	if err != nil {
		return nil, err
	}
	if stored.revision != l.revision {
		return nil, errStale
	}
	return stored, nil
}

// GetSchema needs Read; NotFound (SCHEMA) when there is none.
// What is given back is the text as it was put: Cedar for the one who put Cedar, beside the JSON of it.
func (s *Service) GetSchema(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (Schema, error) {
	if _, err := s.admit(ctx, c, access.Read, "GetSchema", id); err != nil {
		return Schema{}, err
	}
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), schemaKey)
	if errors.Is(err, storage.ErrNotFound) {
		return Schema{}, noSchemaYet(id)
	}
	if err != nil {
		return Schema{}, fromStorage(err, id)
	}
	var body schemaBody
	if err := decode(item, &body); err != nil {
		return Schema{}, err
	}
	return body.schema(), nil
}

// noSchemaYet names the policy store and not a schema: a policy store has one at most, without an id.
func noSchemaYet(id copse.PolicyStoreID) error {
	return &copse.Error{Kind: copse.NotFound, Resource: copse.ResourceSchema, ID: string(id), Detail: "the policy store has no schema"}
}
