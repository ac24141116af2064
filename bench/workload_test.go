package bench

import (
	"fmt"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
)

// The workload: of n policies, 80 % give one user one action on one folder, 10 % give a group two
// actions on a folder, 10 % compare attributes; at most ten of those are on the action asked for. A
// request carries five entities in AVP's format.

func workload(n int) map[string]string {
	texts := make(map[string]string, n)
	attributes := 0
	for i := range n {
		id := fmt.Sprintf("policy%06d", i)
		switch {
		case i%10 < 8:
			texts[id] = workloadPoint(i)
		case i%10 == 8:
			texts[id] = fmt.Sprintf(`permit(principal in Group::"g%d", action in [Action::"view", Action::"edit"], resource in Folder::"f%d");`, i, i)
		default:
			action := fmt.Sprintf("other%d", i)
			if attributes < 10 {
				action = "view"
			}
			attributes++
			texts[id] = workloadCondition(action)
		}
	}
	return texts
}

const requestEntities = `[
	{"identifier": {"entityType": "User", "entityId": "u0"}, "attributes": {"dept": {"string": "engineering"}, "level": {"long": 4}, "name": {"string": "Ada"}},
	 "parents": [{"entityType": "Group", "entityId": "g8"}, {"entityType": "Group", "entityId": "g28"}]},
	{"identifier": {"entityType": "Document", "entityId": "d1"}, "attributes": {"dept": {"string": "engineering"}, "labels": {"set": [{"string": "draft"}, {"string": "q3"}]},
	 "owner": {"entityIdentifier": {"entityType": "User", "entityId": "u7"}}}, "parents": [{"entityType": "Folder", "entityId": "f8"}]},
	{"identifier": {"entityType": "Folder", "entityId": "f8"}, "attributes": {}, "parents": [{"entityType": "Folder", "entityId": "f0"}]},
	{"identifier": {"entityType": "Group", "entityId": "g8"}, "attributes": {}, "parents": [{"entityType": "Group", "entityId": "everyone"}]},
	{"identifier": {"entityType": "Group", "entityId": "everyone"}, "attributes": {"size": {"long": 12}}, "parents": []}]`

const requestContext = `{"mfa": {"boolean": true}, "hour": {"long": 14}}`

func requests() []copse.Request {
	base := copse.Request{
		Principal: types.NewEntityUID("User", "u0"), Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Document", "d1"),
		Entities: copse.Data{Format: copse.FormatAVPList, Bytes: []byte(requestEntities)},
		Context:  copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(requestContext)},
	}
	stranger, edit, missing := base, base, base
	stranger.Principal.ID = "nobody"
	edit.Action.ID = "edit"
	missing.Context.Bytes = []byte(`{}`)
	return []copse.Request{base, stranger, edit, missing}
}

// workloadSchema has six actions.
const workloadSchema = `
entity Group in [Group] { size?: Long };
entity User in [Group] { dept: String, level: Long, name: String };
entity Folder in [Folder];
entity Document in [Folder] { dept: String, labels: Set<String>, owner: User };
action view, edit, comment, share, move, delete appliesTo { principal: [User], resource: [Document], context: { mfa?: Bool, hour?: Long } };
`

// shares are n links to one template.
func shares(b testing.TB, n int) []engine.Source {
	b.Helper()
	template, err := engine.ParseTemplate("template", []byte(`permit(principal == ?principal, action in [Action::"view", Action::"edit"], resource in ?resource) when { context.mfa && !resource.labels.contains("secret") };`))
	if err != nil {
		b.Fatal(err)
	}
	out := make([]engine.Source, n)
	for i := range out {
		id := fmt.Sprintf("link%06d", i)
		p, err := template.Link(id, types.NewEntityUID("User", types.String(fmt.Sprint("u", i))), types.NewEntityUID("Folder", types.String(fmt.Sprint("f", i))))
		if err != nil {
			b.Fatal(err)
		}
		out[i] = engine.Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: p}
	}
	return out
}

// workloadCondition is one of the policies that compare attributes.
func workloadCondition(action string) string {
	return `permit(principal is User, action == Action::"` + action + `", resource is Document) when { principal.dept == resource.dept && principal.level >= 3 && context.mfa && !resource.labels.contains("secret") };`
}

// workloadPoint gives one user one action on one folder.
func workloadPoint(i int) string {
	return fmt.Sprintf(`permit(principal == User::"u%d", action == Action::"view", resource in Folder::"f%d");`, i, i)
}
