// Package engine is the PDP: it turns the text of schemas and policies into a snapshot, and a request
// into a decision.
//
// It exists because an evaluator is not yet a service. cedar-go parses, validates and evaluates Cedar
// correctly, but it looks at every policy for every request, builds a value for everything a request
// says before it decides anything, trusts whoever wrote the text, and knows nothing of budgets. Here
// strangers write the policies, the schemas and the requests, thousands of tenants share one process,
// and a mistake must never read as ALLOW. So cedar-go parses and typechecks what is written rarely;
// what happens for each request, reading it and deciding it, is done here.
//
// # The way of a policy
//
//	text ──grammar──> sound, small text ──cedar-go──> tree ──Validate──> agreed with the schema
//	                                                     │
//	                                                  Compile ──> symbols, scope index, programs
//	                                                                   │
//	request bytes ──scan, decode──> values ──check──> agreed ──────────┴──> candidates ──> decision
//
// [ParsePolicy] first reads the text with a grammar of its own (lex.go, grammar.go, expression.go). It
// builds nothing; it finds faults and says where they are, and it keeps from cedar-go's parser what
// that would not survive or would pay for out of proportion: deep nesting, long chains, and `has`
// inside `has`, which cedar-go writes out. What passes is handed to cedar-go, policy by policy; where
// cedar-go reads a text differently than Cedar's reference, it is shown one that both read alike. The
// text is kept as it was written, comments included. JSON is written as text first (policy_json.go).
//
// [ParseTemplate] does the same, and remembers where the grammar found slots. [Template.Link] fills
// them in the tree: a link has a scope of its own and the conditions of its template (template.go).
//
// [Schema.Validate] holds policies to a schema as Cedar's STRICT mode does (validate.go). The head of a
// policy decides which request environments it is about (head.go), which policies share; cedar-go's
// typechecker is shown a schema cut down to those, and only when the policy's nodes times the
// environments are within a budget (weigh.go). [Reports] says the same of many policies one by one, and
// warns (report.go). A schema itself is measured before it is written out (schema_guard.go).
// docs/cedar.md lists limits, and differences from the reference.
//
// [Compile] numbers the names, entity types and entities that the schema and the policies mention
// (symbols.go), sorts policies by id and builds the index (index.go): principal, resource and action of
// each scope become keys, so that finding the policies whose scope matches costs the same for ten and
// for a hundred thousand. That is exact: scope tests can't fail, so the policies left out could have
// been neither satisfied nor an error. The conditions become a program (compile.go): a closure for each
// operator, which knows its operands' closures and has looked up what can be looked up beforehand
// (ops.go, extension.go, like.go). Links share their template's program. After a change,
// [Snapshot.Recompile] takes what did not change from the snapshot before.
//
// # The way of a request
//
// [Snapshot.Decide] does everything in a call (call.go), whose room is used again for later requests. It
// reads entities and context from their bytes to values (value.go) in one go: scan.go knows JSON,
// decode_avp.go and decode_cedar.go the two forms, decode.go joins them with what the verified token
// said, refusing a caller who names any of that. Texts stay where they are in the request; names and
// entities become numbers, those of the snapshot or, for what it does not mention, numbers of the call;
// records are sorted by name and sets in an order of their own, so that nobody can make them clash.
// Where something is wrong, reader.go reads the text again to say where. ancestors.go finds what each
// entity is in, check.go compares everything with the schema (shape.go) where that is switched on, the
// index gives the candidates, and their programs run (decide.go). Entities of actions come from the
// schema. An expression that can't be evaluated leaves a fault (fault.go), which becomes text when the
// answer is put together. Each step is counted (budget.go); over the budget the decision is DENY.
//
// [Snapshot.Explain] tells why. It decides, gets the candidates as parsed policies from its caller, cuts
// their text along their tree (explain_text.go), and compiles and evaluates each part by itself
// (explain.go).
//
// # What a caller may rely on
//
//   - Nothing here does I/O, reads a clock, starts a goroutine or keeps state outside of the values it
//     returns, but for empty scratch memory. A [Schema], [Policy] and [Snapshot] are immutable and may be shared.
//   - Bad input is a *copse.Error of kind Invalid, or QuotaExceeded for the size of policy or schema,
//     with a Field that says what and where; it is never a panic, and never half a result.
//   - All work is bounded by the size of the input and the budgets, whatever the input says.
//   - Determining policies and errors are sorted by policy id; the same snapshot and request give the
//     same answer.
//   - A warm decision takes no memory but that of its answer, which refers to nothing of the request.
//   - The judge (judge_test.go) is cedar-go's evaluator over a full scan. Decision, determining policies, erring
//     policies and their messages agree with it on Cedar's corpus, on random policy stores, and on
//     mutated input.
package engine
