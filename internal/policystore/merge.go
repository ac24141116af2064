package policystore

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// merge is what becomes of stored contents under new ones.
// It reads nothing and commits nothing: it turns one revision and a request into writes, so that a caller who
// loses the race for that revision throws it away and makes another from what is there then.
type merge struct {
	// What there is. Planning changes it in place: afterwards stored is not what storage has any more.
	stored *contents // its templates become those of afterwards
	in     NewContents
	drafts drafts
	// The schema that will hold: the one that was given, else the stored one; nil when there is neither.
	schema *engine.Schema // afterwards
	at     time.Time

	// What the plan comes to, filled from top to bottom by the steps of plan.
	templates map[copse.PolicyTemplateID]*nextTemplate // as they will be
	byName    map[string]*nextTemplate
	gone      map[copse.PolicyID]bool // deleted or replaced
	next      []nextPolicy            // the policies that were given, as they will be
	writes    []storage.Write
	result    ContentsResult
}

// nextTemplate is a template as it will be.
// The stored template that it embeds is the one the stored links point at, so a change of its body is a
// change for them. Of a new template it is a fresh one, at version 0, which as an expectation is absence.
type nextTemplate struct {
	*storedTemplate
	parsed  *engine.Template // nil until it is needed, of one that stays
	path    string           // where it was given; empty for one that stays
	name    string           // as it was given
	changed bool
}

// nextPolicy is a policy as it will be.
// It keeps the id and the time of its making from the stored policy of its name. Where the text did not parse,
// or a link could not be filled, policy is nil, and the findings say why. former is the stored policy of the
// same name; nil: there is none, or this one has no name.
type nextPolicy struct {
	policySource
	body     policyBody
	path     string
	former   *storedPolicy
	template *nextTemplate // of a link
}

func newMerge(stored *contents, in NewContents, d drafts, schema *engine.Schema) *merge {
	return &merge{
		stored: stored, in: in, drafts: d, schema: schema, at: now(),
		templates: make(map[copse.PolicyTemplateID]*nextTemplate), byName: make(map[string]*nextTemplate),
		gone: make(map[copse.PolicyID]bool),
	}
}

// write adds a row to the commit. The expectation is that of the revision that was read: 0 for what was absent.
func (m *merge) write(key storage.Key, body any, expect storage.Expectation) error {
	encoded, err := encode(body)
	m.writes = append(m.writes, storage.Write{Key: key, Body: encoded, Expect: expect})
	return err
}

// plan computes the writes and the result, and validates what is new. found is what is known to be wrong
// already; it is told together with the rest.
// The order matters: links are filled with the templates of afterwards, and everything is validated before
// policies are written. found is copied, as the next attempt begins with it again.
func (m *merge) plan(found findings) error {
	f := findings{fields: slices.Clone(found.fields), more: found.more}
	if err := m.planSchema(); err != nil {
		return err
	}
	if err := m.planTemplates(); err != nil {
		return err
	}
	if err := m.draftPolicies(&f); err != nil {
		return err
	}
	if err := m.validate(&f); err != nil {
		return err
	}
	for i := range m.next {
		if err := m.planPolicy(&m.next[i]); err != nil {
			return err
		}
	}
	if err := m.planOthers(); err != nil {
		return err
	}
	slices.SortFunc(m.result.Policies, func(a, b copse.PolicyRef) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// planSchema writes the schema unless it is the stored one already, which keeps its version: with a new
// version the next snapshot compiles every policy again, and the next link has its template validated again.
func (m *merge) planSchema() error {
	if m.in.Schema == nil {
		return nil
	}
	if err := checkSchema(*m.in.Schema, m.schema, m.stored.quotas); err != nil {
		return err
	}
	body := newSchemaBody(*m.in.Schema, m.schema, m.at, m.at)
	if old := m.stored.schemaBody; old != nil {
		// Compared as they would be stored, since JSON loses its white space there.
		was, err := encode(&schemaBody{JSON: old.JSON, Cedar: old.Cedar})
		if err != nil {
			return err
		}
		is, err := encode(&schemaBody{JSON: body.JSON, Cedar: body.Cedar})
		if err != nil {
			return err
		}
		if string(was) == string(is) {
			return nil
		}
		body.CreatedAt = old.CreatedAt
	}
	return m.write(schemaKey, body, storage.Version(m.stored.schemaVersion))
}

// planTemplates decides which templates there will be, before the links that name them are looked at.
// Templates are matched by name. One without a name can't be given, so it stays unless Prune says otherwise;
// with no list at all every template stays.
func (m *merge) planTemplates() error {
	former := make(map[string]*storedTemplate)
	for _, id := range slices.Sorted(maps.Keys(m.stored.templates)) {
		switch t := m.stored.templates[id]; {
		case m.in.Templates == nil || t.body.Name == "" && !m.in.Prune:
			m.keep(&nextTemplate{storedTemplate: t})
		case t.body.Name == "":
			m.removeTemplate(t)
		default:
			former[t.body.Name] = t
		}
	}
	// What was given keeps the id of its name, so that stored links follow it.
	for _, d := range m.drafts.templates {
		t := former[d.text.Name]
		delete(former, d.text.Name)
		next := &nextTemplate{storedTemplate: t, parsed: d.template, path: d.path, name: d.text.Name}
		if t == nil {
			next.storedTemplate = &storedTemplate{id: copse.PolicyTemplateID(copse.NewID())}
		}
		m.keep(next)
		if d.template == nil {
			continue // it does not parse, and nothing will be written
		}
		if err := m.planTemplate(next, d.text, t == nil); err != nil {
			return err
		}
	}
	// Named, and not given: it goes, and planOthers takes its links along.
	for _, name := range slices.Sorted(maps.Keys(former)) {
		m.removeTemplate(former[name])
	}
	return nil
}

// keep has a template be there afterwards. Its name is that of the stored one or, of a new one whose body is
// not written yet, the one that was given.
func (m *merge) keep(t *nextTemplate) {
	m.templates[t.id] = t
	if name := cmp.Or(t.body.Name, t.name); name != "" {
		m.byName[name] = t
	}
}

// planTemplate writes a template that is new or says something else than before. One that says the same is
// left alone, so that a call that is repeated changes nothing and its links need no validation.
func (m *merge) planTemplate(next *nextTemplate, text PolicyText, created bool) error {
	if !created && next.body.Statement == text.Statement && next.body.Description == text.Description {
		return nil
	}
	if err := checkSize(copse.ResourceTemplate, next.path, len(text.Statement), m.stored.quotas.PolicyBytes); err != nil {
		return err
	}
	next.changed = true
	madeAt := m.at
	if created {
		m.result.Created++
		if text.Name != "" {
			err := m.write(templateNameKey(text.Name), &nameBody{V: bodyVersion, Policy: copse.PolicyID(next.id)}, storage.Absent())
			if err != nil {
				return err
			}
		}
	} else {
		m.result.Updated++
		madeAt = next.body.CreatedAt
	}
	// In place: the stored links have this template.
	next.body = newTemplateBody(text, next.parsed, madeAt, m.at)
	return m.write(templateKey(next.id), &next.body, storage.Version(next.version))
}

// removeTemplate writes the removal of a template and of its name. Its links are not looked at here: they are
// linked to nothing then, and planOthers removes them.
func (m *merge) removeTemplate(t *storedTemplate) {
	m.result.Deleted++
	m.writes = append(m.writes, storage.Write{Key: templateKey(t.id), Expect: storage.Version(t.version)})
	m.writes = append(m.writes, t.unname()...)
}

// parse gives the template as the engine has it.
// nil without an error is a template that was given and does not parse. A stored one that does not parse any
// more is InvalidState: not what was given is wrong.
func (t *nextTemplate) parse() (*engine.Template, error) {
	if t.parsed != nil || t.path != "" {
		return t.parsed, nil
	}
	parsed, err := t.storedTemplate.parse(string(t.id))
	if err != nil {
		return nil, unusable(t.storedTemplate, err)
	}
	t.parsed = parsed
	return parsed, nil
}

// draftPolicies turns what was given into policies as they will be, links filled.
// Names decide which stored policy one takes the place of; a policy without a name never takes any. One that
// can't be read stays in the list, without a policy.
func (m *merge) draftPolicies(f *findings) error {
	former := make(map[string]*storedPolicy)
	for i := range m.stored.policies {
		if p := &m.stored.policies[i]; p.body.Name != "" {
			former[p.body.Name] = p
		}
	}
	for _, d := range m.drafts.policies {
		p := nextPolicy{path: d.path, former: former[d.text.Name]}
		if d.text.Name == "" {
			p.former = nil
		}
		p.ref = copse.PolicyRef{ID: copse.PolicyID(copse.NewID()), Name: d.text.Name}
		created := m.at
		if p.former != nil {
			p.ref.ID, created = p.former.id, p.former.body.CreatedAt
		}
		if d.text.Link != nil {
			if err := m.draftLink(f, d, &p); err != nil {
				return err
			}
			p.body.CreatedAt = created
		} else if p.policy = d.policy; p.policy != nil {
			p.body = newPolicyBody(d.text, d.policy, created, m.at)
		}
		p.size = p.body.size()
		m.next = append(m.next, p)
	}
	return nil
}

// draftLink fills a link that was given. What is wrong with it is a finding; then p has no policy.
func (m *merge) draftLink(f *findings, d draft, p *nextPolicy) error {
	link := *d.text.Link
	name, isName := strings.CutPrefix(string(link.Template), namePrefix)
	p.template = m.templates[link.Template]
	if isName {
		p.template = m.byName[name]
	}
	if p.template == nil {
		f.add(copse.Field{Path: d.path, Message: fmt.Sprintf("there is no policy template %q", strings.TrimPrefix(string(link.Template), namePrefix))})
		return nil
	}
	template, err := p.template.parse()
	if err != nil || template == nil { // nil: it was given, and its findings say what is wrong
		return err
	}
	if p.policy, err = template.Link(d.path, link.Principal, link.Resource); err != nil {
		return f.take(err)
	}
	p.body = newLinkBody(d.text.Name, link, p.policy, p.template.id, m.at)
	return nil
}

// validate holds what is new against the schema as it will be, and then tells everything that was found:
// templates and policies that were given, the templates of links that were given, and the links that stay
// of templates that change.
// The last are validated because a template's change is theirs: what it says of a slot's type may not hold for
// the entity that stands in it. A template that several links were given of is validated once.
func (m *merge) validate(f *findings) error {
	var policies []*engine.Policy
	var templates []*engine.Template
	var paths, templatePaths []string
	checked := make(map[copse.PolicyTemplateID]bool)
	// Templates that are only named by links that were given are held against the schema too: it may be newer
	// than they are.
	check := func(t *nextTemplate, path string) {
		if t.parsed != nil && !checked[t.id] {
			checked[t.id] = true
			templates, templatePaths = append(templates, t.parsed), append(templatePaths, path)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.templates)) {
		if t := m.templates[id]; t.path != "" {
			check(t, t.path)
		}
	}
	for i := range m.next {
		if p := &m.next[i]; p.policy != nil {
			policies, paths = append(policies, p.policy), append(paths, p.path)
			if p.template != nil {
				check(p.template, p.path)
			}
		}
	}
	for i := range m.stored.policies {
		p := &m.stored.policies[i]
		if t := m.staysLinked(p); t != nil && t.changed {
			link, err := p.fill(t.parsed, t.path)
			if err := f.take(err); err != nil {
				return err
			}
			if link != nil {
				policies, paths = append(policies, link), append(paths, t.path)
			}
		}
	}
	mode := m.stored.settings.Validation
	if err := f.take(validateTemplates(mode, m.schema, templatePaths, templates...)); err != nil {
		return err
	}
	if err := f.take(validate(mode, m.schema, paths, policies...)); err != nil {
		return err
	}
	return f.err(copse.ResourcePolicy, "the policies are not valid")
}

// staysLinked is the template, afterwards, of a stored link that stays; nil for any other policy.
// A link with a name stays only if it was given again, and then it is one of next.
func (m *merge) staysLinked(p *storedPolicy) *nextTemplate {
	if p.body.Link == nil || p.body.Name != "" || m.in.Prune {
		return nil
	}
	return m.templates[p.body.Link.Template]
}

// planPolicy writes a policy that was given, unless it says what the stored one says. Its size is checked here
// and not earlier: a smaller plan does not stop a call that leaves a large policy as it is.
func (m *merge) planPolicy(p *nextPolicy) error {
	m.result.Policies = append(m.result.Policies, p.ref)
	if p.former != nil {
		m.gone[p.former.id] = true
		was := &p.former.body
		if was.Statement == p.body.Statement && was.Description == p.body.Description && was.Link.equal(p.body.Link) && was.sameHead(&p.body) {
			return nil
		}
	}
	if err := checkSize(copse.ResourcePolicy, p.path, len(p.body.Statement), m.stored.quotas.PolicyBytes); err != nil {
		return err
	}
	if p.former != nil {
		m.result.Updated++
		return m.write(policyKey(p.ref.ID), &p.body, storage.Version(p.former.version))
	}
	m.result.Created++
	if p.ref.Name != "" {
		// A link that went with its template may have had the name.
		expect := storage.Version(m.stored.names[p.ref.Name])
		if err := m.write(nameKey(p.ref.Name), &nameBody{V: bodyVersion, Policy: p.ref.ID}, expect); err != nil {
			return err
		}
	}
	return m.write(policyKey(p.ref.ID), &p.body, storage.Absent())
}

// equal compares template and slots; two policies that are no links are equal in that.
func (b *linkBody) equal(other *linkBody) bool {
	if b == nil || other == nil {
		return b == other
	}
	return *b.link() == *other.link()
}

// sameHead reports whether two bodies say the same of a policy's effect and scope. Those of a link are its
// template's, which new contents may change.
func (b *policyBody) sameHead(other *policyBody) bool {
	return b.Effect == other.Effect && b.Principal.uid() == other.Principal.uid() && b.Resource.uid() == other.Resource.uid()
}

// planOthers decides about the policies that were not given.
// Without Prune what has no name stays, but for links whose template goes: they would be nothing. All else
// that was not given is removed, the names included.
func (m *merge) planOthers() error {
	for i := range m.stored.policies {
		p := &m.stored.policies[i]
		switch {
		case m.gone[p.id]:
		case p.body.Name == "" && !m.in.Prune && (p.body.Link == nil || m.staysLinked(p) != nil):
			m.result.Kept = append(m.result.Kept, copse.PolicyRef{ID: p.id})
			if err := m.refit(p); err != nil {
				return err
			}
		default:
			m.gone[p.id] = true
			m.result.Deleted++
			m.writes = append(m.writes, storage.Write{Key: policyKey(p.id), Expect: storage.Version(p.version)})
			m.writes = append(m.writes, p.unname()...)
		}
	}
	return nil
}

// refit writes down what a link that stays is now, when its template has another effect or scope.
// Rows repeat the head so that lists need no parser, and here it would not be true any more. The stored body is
// replaced in place, for check counts bytes by resource.
func (m *merge) refit(p *storedPolicy) error {
	t := m.staysLinked(p)
	if t == nil || !t.changed {
		return nil
	}
	link, err := p.fill(t.parsed, t.path)
	if err != nil {
		return err
	}
	body := newLinkBody(p.body.Name, *p.body.Link.link(), link, t.id, m.at)
	if body.sameHead(&p.body) {
		return nil
	}
	body.CreatedAt = p.body.CreatedAt
	p.body = body // which counts from here on
	return m.write(policyKey(p.id), &p.body, storage.Version(p.version))
}

// check holds the limits of the contents as they will be.
// It comes last and looks at all that will be there, for most limits are on the whole. A change that leaves
// less of what is over a limit is refused all the same, as long as it is over.
func (m *merge) check(s *Service) error {
	if err := checkCommit(m.writes); err != nil {
		return err
	}
	if len(m.drafts.templates) > 0 { // a plan made smaller does not stop what adds none
		if err := checkTemplateCount(len(m.templates), m.stored.quotas); err != nil {
			return err
		}
	}
	// Text is counted as a ledger counts it: each text once, and a template's once more for every link.
	var all load
	for _, t := range m.templates {
		all.text += len(t.body.Statement)
	}
	sizes := make(scopeSizes)
	count := func(b *policyBody, template *storedTemplate) {
		all.text += b.size()
		if template != nil {
			all.linked += len(template.body.Statement)
		}
		sizes.add(b.Resource.uid(), b.size())
	}
	for i := range m.next {
		p := &m.next[i]
		if p.template != nil {
			count(&p.body, p.template.storedTemplate)
		} else {
			count(&p.body, nil)
		}
	}
	for i := range m.stored.policies {
		if p := &m.stored.policies[i]; !m.gone[p.id] {
			count(&p.body, p.template)
		}
	}
	if err := sizes.check(m.stored.quotas.ScopeBytes); err != nil {
		return err
	}
	// The weight is asked for last, because it may have to compile everything.
	weight, err := s.weigh(m.schema, m.stored.settings.settings(), all, func() ([]policySource, error) {
		sources, err := m.stored.sources(m.gone)
		for i := range m.next {
			sources = append(sources, m.next[i].policySource)
		}
		return sources, err
	})
	if err != nil {
		return err
	}
	return s.checkWeight(weight)
}
