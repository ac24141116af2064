package engine

import (
	"github.com/copse-authz/copse"
)

// Decide answers a request; PolicyStoreID, Incarnation and Revision are the caller's business. With an
// error, which is a *copse.Error of kind Invalid, the Response is its zero value. The request's bytes
// must not change meanwhile; the Response does not refer to them.
func (s *Snapshot) Decide(req *copse.Request) (copse.Response, error) {
	out, _, err := s.DecideCounted(req)
	return out, err
}

// DecideCounted is Decide that also tells what deciding cost, in steps of the budget. What reading the
// request cost is not among them, unless that alone was over the budget. With an error it is 0.
func (s *Snapshot) DecideCounted(req *copse.Request) (out copse.Response, steps int, err error) {
	c := newCall(s, req)
	defer c.release()
	if err := c.answer(); err != nil {
		return copse.Response{}, 0, err
	}
	return c.response(), c.steps, nil
}

// answer reads the request and decides it. An error is about the request, before any policy was looked at.
// Over the budget there is none: the response says so.
func (c *call) answer() error {
	s := c.snapshot
	if err := c.decode(); err != nil {
		return err
	}
	// Before anything is evaluated: a request that does not agree is an error, and never a decision.
	if s.schema != nil && s.settings.CheckRequests {
		if err := c.check(); err != nil {
			return err
		}
	}
	if c.overBudget() {
		return nil // sets that were being read then are not what was sent
	}
	c.steps, c.restAt = 0, stepsBetweenRests // those of decoding are not deciding's
	c.decide(s.index.find(c))
	return nil
}

// decide evaluates the policies whose scope matches. A policy without conditions is satisfied. Over the
// budget it ends at once, whatever was found so far: the answer is a denial then.
func (c *call) decide(found []uint32) {
	for _, i := range found {
		program := c.snapshot.policies[i].program
		// The budget is asked first, for a policy that was cut short has come to nothing.
		verdict := program.run(c)
		switch {
		case c.overBudget():
			return
		case verdict == failed:
			c.steps += stepsOfFailure
			c.failed = append(c.failed, failure{i, c.fault})
		case verdict == no:
		case program.forbids:
			c.forbids = append(c.forbids, i)
		default:
			c.permits = append(c.permits, i)
		}
	}
}

// response puts the answer together, in memory of its own. The candidates are in the order of their
// ids, and so is everything that comes of them. Allow is set in one place, where a permit is satisfied and
// nothing stands against it.
func (c *call) response() copse.Response {
	out := copse.Response{Considered: len(c.found)}
	if c.overBudget() {
		out.OverBudget = true
		out.Errors = []copse.EvaluationError{{Message: overBudget}}
		return out
	}
	unsure := false // a forbid failed that is set to deny then
	if len(c.failed) > 0 {
		out.Errors = make([]copse.EvaluationError, len(c.failed))
		for i := range c.failed {
			p := &c.snapshot.policies[c.failed[i].policy]
			out.Errors[i] = copse.EvaluationError{Policy: p.ref, Message: clip(c.message(&c.failed[i].fault))}
			unsure = unsure || p.program.forbids && c.snapshot.settings.ForbidErrorsDeny
		}
	}
	out.ForbidFailed = unsure && len(c.forbids) == 0
	determining := c.forbids
	// Of a denial for want of certainty nothing is determining: the errors say why.
	if len(c.forbids) == 0 && len(c.permits) > 0 && !unsure {
		out.Decision = copse.Allow
		determining = c.permits
	}
	if len(determining) > 0 {
		out.Determining = make([]copse.PolicyRef, len(determining))
		for i, p := range determining {
			out.Determining[i] = c.snapshot.policies[p].ref
		}
	}
	return out
}
