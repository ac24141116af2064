package policystore

import (
	"context"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// CreateTemplate adds a policy template. Conflict when the name is taken. Needs Write.
// Invalid when it does not parse, does not constrain principal and resource, or does not fit the schema;
// QuotaExceeded beyond the plan's number or size, or the policy store's weight.
func (s *Service) CreateTemplate(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewTemplate) (Template, error) {
	r, err := s.admit(ctx, c, access.Write, "CreatePolicyTemplate", id)
	if err != nil {
		return Template{}, err
	}
	text := PolicyText{Name: in.Name, Statement: in.Statement, Description: in.Description}
	parsed, err := checkTemplate(text)
	if err != nil {
		return Template{}, err
	}
	o, err := newOnce("CreatePolicyTemplate", copse.ResourceTemplate, in.ClientToken, in)
	if err != nil {
		return Template{}, err
	}
	templateID := copse.PolicyTemplateID(copse.NewID())
	var made madeTemplate
	err = s.edit(ctx, operation{"CreatePolicyTemplate", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		// As in CreatePolicy: of two equal calls at once the second finds the first one's answer.
		if done, err := s.recall(ctx, storage.PolicyStore(id), o, &made); done || err != nil {
			return change{base: l}, err
		}
		at := now()
		p := templatePosting{id: templateID, body: newTemplateBody(text, parsed, at, at), template: parsed}
		made = madeTemplate{ID: templateID, Body: p.body}
		if in.Name != "" {
			if p.names, err = s.takeTemplateName(ctx, id, templateID, in.Name); err != nil {
				return change{}, err
			}
		}
		posted, err := s.postTemplate(ctx, id, l, p)
		if err != nil {
			return change{}, err
		}
		answer := made
		answer.Body.Statement = "" // a repeated call has it
		return s.remember(ctx, id, posted, o, string(templateID), answer)
	})
	if err != nil {
		return Template{}, err
	}
	made.Body.Statement = in.Statement
	return made.Body.template(made.ID), nil
}

// madeTemplate is what a client token remembers of CreateTemplate.
type madeTemplate struct {
	ID   copse.PolicyTemplateID `json:"id"`
	Body templateBody           `json:"body"`
}

// checkTemplate holds a template against the rules that need nothing stored, and parses it.
// Invalid has paths of AVP's operations on templates; contents, whose paths differ, call [readTemplate].
func checkTemplate(text PolicyText) (*engine.Template, error) {
	if err := validateDescription("description", text.Description); err != nil {
		return nil, err
	}
	if text.Name != "" {
		if err := validateName(namePath, text.Name); err != nil {
			return nil, err
		}
	}
	return readTemplate(templatePath, text.Statement)
}

// readTemplate parses a template that comes in: it must constrain principal and resource, as AVP demands.
func readTemplate(path, statement string) (*engine.Template, error) {
	parsed, err := parseTemplate(path, statement)
	if err != nil {
		return nil, err
	}
	return parsed, parsed.RequireConstraints()
}

// templatePosting is one template to be written: new, or in place of former.
// names are the writes that give or take names.
type templatePosting struct {
	id       copse.PolicyTemplateID
	body     templateBody
	template *engine.Template
	former   *storedTemplate
	names    []storage.Write
}

// postTemplate prepares the writes of a template that is made or changed. Its links change with it, and are weighed with it:
// a small change of a template with thousands of links may not fit.
func (s *Service) postTemplate(ctx context.Context, id copse.PolicyStoreID, l *ledger, p templatePosting) (change, error) {
	expect := storage.Absent()
	if p.former != nil {
		expect = storage.Version(p.former.version)
	}
	if err := checkSize(copse.ResourceTemplate, templatePath, len(p.body.Statement), l.quotas.PolicyBytes); err != nil {
		return change{}, err
	}
	// Only what adds one is counted: a plan made smaller stops no change of a template that is there.
	if p.former == nil {
		if err := checkTemplateCount(len(l.templates)+1, l.quotas); err != nil {
			return change{}, err
		}
	}
	schema, err := l.schema()
	// A stored schema that does not resolve any more must not stop writes that no schema is asked about.
	if err != nil && l.settings.Validation == copse.ValidationStrict {
		return change{}, err
	}
	if err := validateTemplates(l.settings.Validation, schema, []string{templatePath}, p.template); err != nil {
		return change{}, err
	}
	// Last, since near the limit it compiles everything.
	weight, err := s.chargeTemplate(ctx, id, l, schema, p)
	if err != nil {
		return change{}, err
	}
	encoded, err := encode(&p.body)
	if err != nil {
		return change{}, err
	}
	writes := append([]storage.Write{{Key: templateKey(p.id), Body: encoded, Expect: expect}}, p.names...)
	return change{base: l, writes: writes, settle: func(l *ledger, _ uint64) {
		// The zero mark of a template that is new becomes its own.
		mark := l.templates[p.id]
		mark.size = len(p.body.Statement)
		l.templates[p.id], l.weight = mark, weight
	}}, nil
}

// chargeTemplate finds the weight with a template as it will be. By itself a template weighs its text;
// its links weigh what they are with it.
// A template without links is in no snapshot, so there is nothing to compile for it.
func (s *Service) chargeTemplate(ctx context.Context, id copse.PolicyStoreID, l *ledger, schema *engine.Schema, p templatePosting) (int64, error) {
	mark, all := l.templates[p.id], l.load()
	if mark.links == 0 && l.weight+int64(len(p.body.Statement)) <= s.maxWeight {
		return l.weight + int64(len(p.body.Statement)), nil
	}
	all.text += len(p.body.Statement) - mark.size
	// For every link as much more as the text grew.
	all.linked += (len(p.body.Statement) - mark.size) * mark.links
	weight, err := s.weigh(schema, l.settings.settings(), all, func() ([]policySource, error) {
		stored, err := s.readAt(ctx, id, l)
		if err != nil {
			return nil, err
		}
		// In place: the stored links point at this template, and are compiled with its new text.
		if t := stored.templates[p.id]; t != nil {
			t.body = p.body
		}
		return stored.sources(nil)
	})
	if err != nil {
		return 0, err
	}
	return weight, s.checkWeight(weight)
}

// GetTemplate reads a policy template by id, or by "name/<name>". Needs Read.
func (s *Service) GetTemplate(ctx context.Context, c access.Caller, id copse.PolicyStoreID, template copse.PolicyTemplateID) (Template, error) {
	if err := template.Validate(); err != nil {
		return Template{}, err
	}
	if _, err := s.admit(ctx, c, access.Read, "GetPolicyTemplate", id); err != nil {
		return Template{}, err
	}
	// As in GetPolicy: between the two reads the name can become another's.
	// As in GetPolicy, for a name.
	for range maxAttempts {
		t, err := s.storedTemplate(ctx, id, template)
		if err != nil {
			return Template{}, fromStorage(err, id)
		}
		if !strings.HasPrefix(string(template), namePrefix) || namePrefix+t.body.Name == string(template) {
			return t.body.template(t.id), nil
		}
	}
	return Template{}, fromStorage(storage.ErrConflict, id)
}

// UpdateTemplate changes action scope, conditions, description and name, but neither effect nor principal
// nor resource, as AVP. It is one commit: the next decision of every link is the new template's. Needs
// Write.
// Invalid when effect, principal or resource would change, NotFound when it is absent, Conflict when the new
// name is taken, QuotaExceeded when it and its links would weigh too much.
func (s *Service) UpdateTemplate(ctx context.Context, c access.Caller, id copse.PolicyStoreID, template copse.PolicyTemplateID, u TemplateUpdate) (Template, error) {
	if err := template.Validate(); err != nil {
		return Template{}, err
	}
	r, err := s.admit(ctx, c, access.Write, "UpdatePolicyTemplate", id)
	if err != nil {
		return Template{}, err
	}
	text := PolicyText{Statement: u.Statement}
	if u.Description != nil {
		text.Description = *u.Description
	}
	if u.Name != nil {
		text.Name = *u.Name
	}
	parsed, err := checkTemplate(text)
	if err != nil {
		return Template{}, err
	}
	var updated Template
	err = s.edit(ctx, operation{"UpdatePolicyTemplate", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		// Read at the ledger's revision, or the commit is refused.
		former, err := s.storedTemplate(ctx, id, template)
		if err != nil {
			return change{}, err
		}
		// Links repeat effect and scope in their rows, of which there may be more than a commit takes.
		if err := checkTemplateTarget(&former, parsed); err != nil {
			return change{}, err
		}
		p := templatePosting{id: former.id, former: &former, template: parsed}
		// From the stored one, at this revision: what the update leaves out stays as it is.
		p.body = newTemplateBody(PolicyText{Name: former.body.Name, Statement: u.Statement, Description: former.body.Description},
			parsed, former.body.CreatedAt, now())
		if u.Description != nil {
			p.body.Description = *u.Description
		}
		if u.Name != nil && *u.Name != former.body.Name {
			p.body.Name = *u.Name
			if p.names, err = s.renameTemplate(ctx, id, &former, *u.Name); err != nil {
				return change{}, err
			}
		}
		updated = p.body.template(p.id)
		return s.postTemplate(ctx, id, l, p)
	})
	if err != nil {
		return Template{}, err
	}
	return updated, nil
}

// checkTemplateTarget refuses an update that would make other policies of a template's links.
func checkTemplateTarget(former *storedTemplate, next *engine.Template) error {
	old, err := former.parse(templatePath)
	if err != nil {
		// It decides nothing as it is, and neither do its links: any target is a repair.
		return nil //nolint:nilerr // what is stored is wrong, not what was asked
	}
	if old.SameTarget(next) {
		return nil
	}
	return invalid(copse.ResourceTemplate, "an update can't change a policy template's effect, principal or resource",
		copse.Field{Path: templatePath, Message: "effect, principal and resource must stay as they are; create another template instead"})
}

// renameTemplate is rename for templates, which have names of their own: a policy may have the same one.
func (s *Service) renameTemplate(ctx context.Context, id copse.PolicyStoreID, former *storedTemplate, name string) (writes []storage.Write, err error) {
	if name != "" {
		if writes, err = s.takeTemplateName(ctx, id, former.id, name); err != nil {
			return nil, err
		}
	}
	return append(writes, former.unname()...), nil
}

// unname is the write that makes a template's name free.
func (t *storedTemplate) unname() []storage.Write {
	if t.body.Name == "" {
		return nil
	}
	return []storage.Write{{Key: templateNameKey(t.body.Name), Expect: storage.Any()}}
}
