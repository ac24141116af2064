package engine

import (
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/copse-authz/copse"
)

// Validate checks policies as STRICT demands. The error is a *copse.Error of kind Invalid with a
// Field for each finding, its Path the Path the policy was parsed with.
func (s *Schema) Validate(policies ...*Policy) error {
	var fields []copse.Field
	v := validate.New(s.resolved, validate.WithStrict())
	for _, p := range policies {
		if err := v.Policy("", p.tree); err != nil {
			fields = append(fields, p.at.field(p.path, "%s", err))
		}
	}
	if len(fields) > 0 {
		return policyError(fields...)
	}
	return nil
}
