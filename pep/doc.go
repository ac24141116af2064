// Package pep checks every request of a service again, whatever stands in front of it: it is the policy
// enforcement point inside the service. A gateway that was misconfigured, or gone around, then has let
// in nothing that copse would not have let in.
//
//	guard, err := pep.New(pep.Config{PDP: pdp}) // an *embedded.PDP
//	...
//	mux.Handle("GET /invoices/{id}", guard.Require(func(r *http.Request, who *pep.Identity) (pep.Question, error) {
//		return pep.Ask("view", "Invoice", r.PathValue("id")), nil
//	})(handler))
//
// The middleware is net/http's, so it fits every router that takes such. In this order it
//
//   - verifies the user's token itself, by the registration of the issuer, and takes the tenant from it
//   - refuses when a tenant header or the gateway's signed context says anything else
//   - finds the tenant's policy store: unknown, suspended and foreign tenants are one answer
//   - removes all X-Copse-* headers, so that no handler can believe one
//   - binds the request's context to the tenant, which package rls needs and reads
//   - asks the service what the request is about, and decides
//
// The service says what a request asks with a [Hook], which may read the resource from the database (it
// runs bound to the tenant) and describe it in [Question.Entities]. Nothing in a Question can say who
// asks: entities of the principal's and the groups' types are refused by the engine.
//
// A handler gets tenant, principal and decision from [From], asks further questions with
// [Identity.Decide] and [Identity.DecideAll], and leaves out of a list what its user may not see with
// [Filter].
//
// What can't be known is refused: no error path lets a request through.
package pep
