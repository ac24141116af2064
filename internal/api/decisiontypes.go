package api

import "time"

// LoggedDecision is a line of the decision log.
type LoggedDecision struct {
	Line                uint64       `json:"line,omitzero" doc:"Its number in the log, for keys of everything."`
	Time                time.Time    `json:"time" doc:"When the request came."`
	RequestID           string       `json:"requestId"`
	Via                 string       `json:"via" doc:"The endpoint or operation that was asked." example:"authorize"`
	Key                 string       `json:"key,omitempty" doc:"The id of the access key, where one decided who may ask."`
	Tenant              string       `json:"tenant,omitempty"`
	PolicyStoreID       string       `json:"policyStoreId"`
	Revision            uint64       `json:"revision" doc:"Of the policy store that decided."`
	Principal           string       `json:"principal" example:"User::\"alice\""`
	Action              string       `json:"action"`
	Resource            string       `json:"resource"`
	Context             LoggedValues `json:"context,omitzero" doc:"What the policy store's rules keep of it, in Cedar's JSON form."`
	PrincipalAttributes LoggedValues `json:"principalAttributes,omitzero" doc:"Likewise."`
	ResourceAttributes  LoggedValues `json:"resourceAttributes,omitzero" doc:"Likewise."`
	Decision            string       `json:"decision" enum:"ALLOW,DENY"`
	Layer               string       `json:"layer" doc:"Whose policies decided." example:"tenant"`
	Determining         []string     `json:"determining" nullable:"false" doc:"Ids of the policies that determined the decision."`
	Errors              []string     `json:"errors" nullable:"false" doc:"Ids of policies that could not be evaluated."`
	OverBudget          bool         `json:"overBudget,omitempty" doc:"The decision was cut short, and is DENY."`
	Micros              int64        `json:"micros" doc:"Microseconds from the request's headers to the decision."`
}

// DecisionList is what a search of the decision log found.
type DecisionList struct {
	Decisions []LoggedDecision `json:"decisions" nullable:"false" doc:"The oldest first."`
	Next      string           `json:"next" doc:"As after, it asks for what comes later."`
	Before    string           `json:"before,omitzero" doc:"As before, it asks for what was earlier. Absent: there is nothing earlier to look at."`
}

// DecisionKey is the public half of an Ed25519 key.
type DecisionKey struct {
	ID        string `json:"id"`
	PublicKey []byte `json:"publicKey" doc:"32 bytes in base 64."`
}

// DecisionKeyList are the keys that the decision log is and was signed with.
type DecisionKeyList struct {
	Keys []DecisionKey `json:"keys" nullable:"false"`
}
