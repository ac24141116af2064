package copse

// Outcome is what a part of a policy came to for a request.
type Outcome uint8

// The outcomes of a part. Its zero value says nothing about the part.
const (
	NotEvaluated Outcome = iota // the parts before it had decided already
	False
	True
	Failed // it could not be evaluated, and so the policy was skipped
)

// String is the word that the control API uses.
func (o Outcome) String() string {
	switch o {
	case True:
		return "true"
	case False:
		return "false"
	case Failed:
		return "error"
	default:
		return "not evaluated"
	}
}

// Limits of an [Explanation].
const (
	MaxExplainedPolicies = 32
	MaxExplainedParts    = 64  // of one policy, besides its scope
	MaxExplainedText     = 200 // bytes of a part's text, a value or an error
)

// Explanation is an answer with its reasons. It shows policies, and values of the request: it is for
// those who may read both.
type Explanation struct {
	Response
	// Policies are those whose scope matched, sorted by id; behind them the others, sorted by id, when the
	// policy store has no more than MaxExplainedPolicies.
	Policies []ExplainedPolicy
	// LeftOut counts the policies that matched and are over the limit.
	LeftOut int
}

// ExplainedPolicy tells what a policy came to.
type ExplainedPolicy struct {
	Policy  PolicyRef
	Forbids bool
	// Linked: the policy is a template's, and positions are places in the template's text.
	Linked  bool
	Outcome Outcome // never NotEvaluated
	// Scope is the three tests of the head; they can't fail.
	Scope []ExplainedPart
	// Conditions are its `when` and `unless`; without parts when the scope did not match.
	Conditions []ExplainedPart
	// Cut: there are more parts than are shown.
	Cut bool
}

// ExplainedPart is a piece of a policy.
type ExplainedPart struct {
	// Text is Cedar, on one line, cut at MaxExplainedText.
	Text string
	// Line and Column of its beginning in the policy's text, from 1, the column in bytes.
	Line, Column int
	// Operator that makes Parts one: when, unless, &&, ||, ! or if; empty for what is shown whole.
	Operator string
	Outcome  Outcome
	Error    string // why it failed
	// Values of its operands that are not written out in it.
	Values []ExplainedValue
	Parts  []ExplainedPart
}

// ExplainedValue is what an expression came to, both as Cedar writes them, cut at MaxExplainedText.
type ExplainedValue struct{ Text, Value string }
