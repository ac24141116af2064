// Package engine is the PDP: it turns the text of schemas and policies into a snapshot, and a request
// into a decision.
//
// It exists because an evaluator is not yet a service. cedar-go parses, validates and evaluates Cedar
// correctly, but it looks at every policy for every request, trusts whoever wrote the text, and knows
// nothing of budgets. Here strangers write the policies, the schemas and the requests, thousands of
// tenants share one process, and a mistake must never read as ALLOW.
//
// # The way of a policy
//
//	text ──grammar──> sound, small text ──cedar-go──> tree ──Validate──> agreed with the schema
//	                                                     │
//	                                                  Compile ──> snapshot: policies by id, scope index
//	                                                                   │
//	request bytes ──reader──> values ──check──> agreed with the schema ┴──> candidates ──> decision
//
// [ParsePolicy] first reads the text with a grammar of its own (lex.go, grammar.go, expression.go). It
// builds nothing; it finds faults and says where they are, and it keeps from cedar-go's parser what
// that would not survive or would pay for out of proportion: deep nesting, long chains, and `has`
// inside `has`, which cedar-go writes out. What passes is handed to cedar-go, policy by policy. The
// text is kept as it was written, comments included.
//
// [Schema.Validate] holds policies to a schema as Cedar's STRICT mode does (validate.go). The head of a
// policy decides which request environments it is about; cedar-go's typechecker is shown a schema cut
// down to those, and only when the policy's nodes times the environments are within a budget
// (weigh.go). A schema itself is measured before it is written out (schema_guard.go).
//
// [Compile] sorts policies by id and builds the index (index.go): principal, resource and action of
// each scope become keys, so that finding the policies whose scope matches costs the same for ten and
// for a hundred thousand. That is exact: scope tests can't fail, so the policies left out could have
// been neither satisfied nor an error.
//
// [Snapshot.Decide] reads the request's entities and context token by token (decode.go, reader.go),
// joins them with what the verified token said, refusing a caller who names any of that, finds the
// ancestors of each entity (hierarchy.go), checks everything against the schema where that is switched on
// (check.go), looks up the candidates, and lets cedar-go evaluate those (decide.go). Entities of actions
// come from the schema. What a decision may cost is computed before it is evaluated, from the policies
// (weigh.go), the values, and how those clash in cedar-go's sets (set_cost.go); over the budget it is DENY.
//
// # What a caller may rely on
//
//   - Nothing here does I/O, reads a clock, starts a goroutine or keeps state outside of the values it
//     returns. A [Schema], [Policy] and [Snapshot] are immutable and may be shared.
//   - Bad input is a *copse.Error of kind Invalid, or QuotaExceeded for the size of policy or schema,
//     with a Field that says what and where; it is never a panic, and never half a result.
//   - All work is bounded by the size of the input and the budgets, whatever the input says.
//   - Determining policies and errors are sorted by policy id; the same snapshot and request give the
//     same answer. (The text of an evaluation error may name another culprit where cedar-go has several
//     to choose from.)
//   - The judge (judge_test.go) is cedar-go over a full scan. Decision, determining policies, erring
//     policies and their messages agree with it on Cedar's corpus, on random policy stores, and on
//     mutated input.
package engine
