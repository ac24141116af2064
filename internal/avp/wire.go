package avp

import (
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// timestamp is written as AVP does: RFC 3339, UTC, microseconds. A number would break the SDKs. SDKs in
// either language fail on the whole answer when a timestamp is not a string.
type timestamp time.Time

func (t timestamp) MarshalJSONTo(enc *jsontext.Encoder) error {
	return enc.WriteToken(jsontext.String(time.Time(t).UTC().Format("2006-01-02T15:04:05.000000Z")))
}

// arn of a policy store. The region part is empty, as in AWS. An ARN names no incarnation: a successor
// with the same id would have the same.
func (h *handler) arn(id copse.PolicyStoreID) string {
	return "arn:aws:verifiedpermissions::" + h.accountID + ":policy-store/" + string(id)
}

// entityIdentifier names an entity. Its text is not checked to be Cedar's here: see [findings.entity].
type entityIdentifier struct {
	EntityType string `json:"entityType"`
	EntityID   string `json:"entityId"`
}

// actionIdentifier names an action; AVP gives its members other names than those of an entity.
type actionIdentifier struct {
	ActionType string `json:"actionType"`
	ActionID   string `json:"actionId"`
}

// entityOrNone is nil for a scope that names no single entity.
func entityOrNone(uid types.EntityUID) *entityIdentifier {
	if uid == (types.EntityUID{}) {
		return nil
	}
	return &entityIdentifier{EntityType: string(uid.Type), EntityID: string(uid.ID)}
}

// uid makes no check, and takes anything as a type: the engine refuses what Cedar would not read.
func (e entityIdentifier) uid() types.EntityUID {
	return types.NewEntityUID(types.EntityType(e.EntityType), types.String(e.EntityID))
}

// actionsOf is nil, and so left out, for a scope that names no actions.
func actionsOf(uids []types.EntityUID) []actionIdentifier {
	if len(uids) == 0 {
		return nil
	}
	actions := make([]actionIdentifier, len(uids))
	for i, uid := range uids {
		actions[i] = actionIdentifier{ActionType: string(uid.Type), ActionID: string(uid.ID)}
	}
	return actions
}

// effectOf is AVP's spelling, which differs from the decisions' upper case.
func effectOf(forbids bool) string {
	if forbids {
		return "Forbid"
	}
	return "Permit"
}

// optional is nil for an empty text, which AVP leaves out of its answers.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// shownName puts AVP's prefix before a policy's name.
func shownName(name string) *string {
	if name == "" {
		return nil
	}
	return new(namePrefix + name)
}

// bareName is a name as copse has it, without AVP's prefix; none is empty.
func bareName(name *string) string { return strings.TrimPrefix(textOf(name), namePrefix) }

// textOf is the text of an optional member; none is empty.
func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// empty is the answer of operations that say nothing but that they did
// it, and a union's variant without members: {} on the wire.
type empty struct{}
