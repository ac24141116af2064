package policystore

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// quota is QuotaExceeded over something that is counted; callers add to it what else they know.
func quota(resource copse.ResourceType, what string, have, limit int) *copse.Error {
	return &copse.Error{Kind: copse.QuotaExceeded, Resource: resource,
		Detail: fmt.Sprintf("too many %s: %d, at most %d are allowed", what, have, limit)}
}

// checkSize holds a plan's limit on one text. The engine has held its own, which no plan exceeds.
func checkSize(resource copse.ResourceType, path string, size, limit int) error {
	if size <= limit {
		return nil
	}
	err := quota(resource, "bytes", size, limit)
	err.Fields = []copse.Field{{Path: path, Message: fmt.Sprintf("%d bytes, at most %d are allowed", size, limit)}}
	return err
}

// checkScope holds the limit on the text of all policies that name one resource, or none: it bounds
// how many policies one request can have to consider.
func checkScope(resource types.EntityUID, size, limit int) error {
	if size <= limit {
		return nil
	}
	what := "that name no single resource"
	if !resource.IsZero() {
		what = "that name the resource " + resource.String()
	}
	return quota(copse.ResourcePolicy, "bytes of policies "+what, size, limit)
}

// checkCommit holds the limits of one commit before it is tried, in words about policies.
func checkCommit(writes []storage.Write) error {
	if len(writes) > copse.MaxContentsWrites {
		err := quota(copse.ResourcePolicyStore, "writes in one change", len(writes), copse.MaxContentsWrites)
		err.Detail += "; a new policy with a name takes two, an unchanged one none. A template with more links is deleted by itself first (`copse template delete`)"
		return err
	}
	// Counted as storage counts.
	size := 0
	for _, w := range writes {
		size += len(w.Key.Kind) + len(w.Key.ID) + len(w.Body)
	}
	if size > copse.MaxContentsBytes {
		return quota(copse.ResourcePolicyStore, "bytes in one change", size, copse.MaxContentsBytes)
	}
	return nil
}

// checkWeight holds the limit on one policy store's memory: when it is written, and not when it is read.
func (s *Service) checkWeight(weight int64) error {
	if weight > s.maxWeight {
		return quota(copse.ResourcePolicyStore, "bytes of policies, their text and their compiled form in memory", int(weight), int(s.maxWeight))
	}
	return nil
}

// A policy store of little text is charged by its text, without being compiled: a byte of policy text
// weighs and takes less than smallTextWeight, which a test holds against the engine.
const (
	smallText       = 32 << 10
	smallTextWeight = 256
)

// policySource is a policy as it is weighed: parsed, or only its text when it does not parse.
// size counts only where policy is nil.
type policySource struct {
	ref    copse.PolicyRef
	policy *engine.Policy
	size   int
}

// weigh finds what a policy store is charged: what it weighs compiled, and its text, of which the
// compiled form keeps nothing while comments take no memory there. A small one may be charged more.
// Policies that don't parse (stored by another version) count by their text.
func (s *Service) weigh(schema *engine.Schema, settings copse.Settings, of load, policies func() ([]policySource, error)) (int64, error) {
	if of.text+of.linked <= smallText {
		// What the schema alone weighs.
		bare, err := engine.Compile(schema, settings, nil)
		if err != nil {
			return 0, err
		}
		if charge := bare.Weight() + int64(of.text+of.linked)*smallTextWeight; charge <= s.maxWeight {
			return charge, nil
		}
	}
	// Only now: reading and parsing all of them is what the above spares.
	all, err := policies()
	if err != nil {
		return 0, err
	}
	var unparsed int64
	sources := make([]engine.Source, 0, len(all))
	for _, p := range all {
		if p.policy == nil {
			unparsed += int64(p.size) * smallTextWeight
			continue
		}
		sources = append(sources, engine.Source{Ref: p.ref, Policy: p.policy})
	}
	compiled, err := engine.Compile(schema, settings, sources)
	if err != nil {
		return 0, err
	}
	return compiled.Weight() + unparsed + int64(of.text), nil
}

// weighStored sets the weight of a policy store as it is stored.
// A schema that does not resolve any more weighs nothing, and what does not parse weighs its text.
func (s *Service) weighStored(c *contents) (err error) {
	schema, err := c.schema()
	if copse.KindOf(err) == copse.InvalidState {
		schema, err = nil, nil // it must stay possible to put another
	}
	if err != nil {
		return err
	}
	c.weight, err = s.weigh(schema, c.settings.settings(), c.load(), func() ([]policySource, error) {
		return c.sources(nil)
	})
	return err
}

// sources parses the stored policies but those in skip.
// That one does not parse is no error: it is counted by its text.
func (c *contents) sources(skip map[copse.PolicyID]bool) ([]policySource, error) {
	out := make([]policySource, 0, len(c.policies))
	parse := c.parser()
	for i := range c.policies {
		p := &c.policies[i]
		if skip[p.id] {
			continue
		}
		parsed, err := parse(p)
		if err != nil && copse.KindOf(err) != copse.Invalid {
			return nil, err
		}
		size := p.body.size()
		if p.template != nil && parsed == nil {
			size += len(p.template.body.Statement)
		}
		out = append(out, policySource{ref: copse.PolicyRef{ID: p.id, Name: p.body.Name}, policy: parsed, size: size})
	}
	return out, nil
}

// parser parses stored policies, each template once. Findings are under the policy's id.
// The function is for one goroutine. It remembers failures too: a template with thousands of links fails once.
func (c *contents) parser() func(*storedPolicy) (*engine.Policy, error) {
	type result struct {
		template *engine.Template
		err      error
	}
	known := make(map[copse.PolicyTemplateID]result)
	return func(p *storedPolicy) (*engine.Policy, error) {
		if p.template == nil {
			return p.parse(string(p.id))
		}
		r, ok := known[p.template.id]
		if !ok {
			r.template, r.err = p.template.parse(string(p.template.id))
			known[p.template.id] = r
		}
		if r.err != nil {
			return nil, r.err
		}
		return p.fill(r.template, string(p.id))
	}
}

// weighOne is what a policy adds to the charge at most: what it weighs in a snapshot of its own, and its
// text.
func weighOne(settings copse.Settings, p *engine.Policy) (int64, error) {
	one, err := engine.Compile(nil, settings, []engine.Source{{Ref: copse.PolicyRef{ID: "policy"}, Policy: p}})
	if err != nil {
		return 0, err
	}
	return one.Weight() + int64(len(p.Text())), nil
}

// scopeSizes adds up policy text by resource.
// The zero UID is for policies that name no single resource.
type scopeSizes map[types.EntityUID]int

func (s scopeSizes) add(resource types.EntityUID, size int) { s[resource] += size }

func (s scopeSizes) check(limit int) error {
	for resource, size := range s {
		if err := checkScope(resource, size, limit); err != nil {
			return err
		}
	}
	return nil
}

// checkTemplateCount holds a plan's limit on templates.
func checkTemplateCount(n int, q Quotas) error {
	if n > q.Templates {
		return quota(copse.ResourceTemplate, "policy templates", n, q.Templates)
	}
	return nil
}

// checkSchema holds a plan's limits on a schema.
func checkSchema(text SchemaText, schema *engine.Schema, q Quotas) error {
	path := schemaJSONPath
	if text.Cedar != "" {
		path = schemaCedarPath
	}
	if err := checkSize(copse.ResourceSchema, path, len(text.JSON)+len(text.Cedar), q.SchemaBytes); err != nil {
		return err
	}
	if n := len(schema.Namespaces()); n > q.Namespaces {
		return quota(copse.ResourceSchema, "namespaces", n, q.Namespaces)
	}
	return nil
}
