package engine

// MaxDecisionSteps is the budget of one decision. Each node of a condition that is evaluated counts one
// step, and so does each element or member that is compared or gone through, and each 16 bytes of text
// that are compared; a search in text counts more, so does making a value, and a policy that fails counts
// most. Steps are counted and not timed, so that no slow machine denies what a fast one allows. (Records that
// differ are told apart at the first member that does, in the order that a snapshot's names came in: after changes
// that may be another one than after a start, a few steps more or less.) A step takes 10 ns or so at worst.
const MaxDecisionSteps = 2_500_000

// stepsOfResult is what a value costs that a condition makes: it is kept until the decision is made. So
// one decision holds a hundred thousand of them at most, 10 MB or so.
const stepsOfResult = 20

// stepsOfFailure is what it takes to say why a policy could not be evaluated: up to a thousand bytes each.
// So a decision tells of ten thousand failures at most.
const stepsOfFailure = 250

const overBudget = "budget exceeded"

// stepsBetweenRests and bytesBetweenRests are how much is decided and read between two moments at which
// others may have the processor: a tenth of a millisecond or so. Ordinary requests end before the first.
const (
	stepsBetweenRests = 20_000
	bytesBetweenRests = 16 << 10
)

// overBudget is asked wherever a condition goes through much, so this is also where a decision rests that
// takes long.
func (c *call) overBudget() bool { return c.steps > c.restAt && c.rest() }

func (c *call) rest() (over bool) {
	if c.steps > MaxDecisionSteps {
		return true // it ends now, and asks often on its way
	}
	giveWay()
	c.restAt = min(c.steps+stepsBetweenRests, MaxDecisionSteps)
	return false
}
