package auditlog

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Problem is a row that is not as it was written, and what is wrong with it.
type Problem struct {
	Number uint64 `json:"number"`
	What   string `json:"what"`
}

func (p Problem) String() string { return fmt.Sprintf("row %d: %s", p.Number, p.What) }

// Report is what a verification found.
type Report struct {
	Rows     uint64    `json:"rows"`
	Erased   uint64    `json:"erased"` // changes of which only commitments are left, or not even those
	Head     string    `json:"head"`   // of the last row, for a later verification
	Problems []Problem `json:"problems"`
}

// Verifier holds the rows of an audit log, from the first on, against their chain.
// Add takes them in order, Done ends it; it is for one goroutine and one log. It does not touch storage: a copy
// of the entries will do.
type Verifier struct {
	report   Report
	number   uint64 // of the last row
	chain    [32]byte
	expected []expected
	// What follows grows with the policy stores there are: a row says what became of its policy store, so
	// the former one must be remembered.
	last map[partition]state
	// Rows without changes, which must be explained by an erasure, by the policy store's life.
	silent map[partition][]uint64
}

// partition is one life of a policy store. Two of one id have histories of their own.
type partition struct {
	id          copse.PolicyStoreID
	incarnation copse.Incarnation
}

// state is what the last row of a partition said of its history.
type state struct {
	revision uint64
	head     [32]byte
	fenced   bool
}

// expected is a row that must be there, and what it means when it is not, or is another.
type expected struct {
	End
	missing, other string
}

// maxProblems bounds a report: after a thousand nobody reads on.
const maxProblems = 1000

// NewVerifier makes one. earlier is the Head of a former report, which the log must contain, or empty.
// Without it, a log whose end was cut off and whose record of the end was set back is not told from a short one.
func NewVerifier(earlier string) (*Verifier, error) {
	v := &Verifier{report: Report{Problems: []Problem{}}, last: map[partition]state{}, silent: map[partition][]uint64{}}
	if earlier == "" {
		return v, nil
	}
	number, chain, _ := strings.Cut(earlier, ":")
	e := expected{
		missing: "it is missing, and was there when the earlier head was taken: the end of the log was cut off, or this is an older copy of it",
		other:   "it is another than when the earlier head was taken: the log was written anew, at the latest from here",
	}
	n, err := strconv.ParseUint(number, 10, 64)
	raw, hexErr := hex.DecodeString(chain)
	if err != nil || hexErr != nil || n == 0 || len(raw) != len(e.Chain) {
		return nil, copse.Errorf(copse.Invalid, "head %q is not one that a verification printed, such as 17:3f...", earlier)
	}
	e.Number = n
	copy(e.Chain[:], raw)
	v.expected = append(v.expected, e)
	return v, nil
}

// Declare says where the log claims to end; what comes after it is verified too.
// It may be called at any time before Done, also more than once.
func (v *Verifier) Declare(end End) {
	if end.Number < v.number || end == (End{v.number, v.chain}) {
		return
	}
	v.expected = append(v.expected, expected{end, "it is missing, and the log says that it goes that far", "it is another than the one the log says it ends with"})
}

// problem notes one, as long as there is room for it.
func (v *Verifier) problem(number uint64, format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, Problem{number, fmt.Sprintf(format, args...)})
	}
}

// Add takes the next row. After a row that is wrong it goes on with what that row says of itself, so that
// one changed row is one problem, or two when its chain was changed too.
func (v *Verifier) Add(e *Entry) {
	v.report.Rows++
	switch {
	case e.Number == v.number+2:
		v.problem(v.number+1, "it is missing")
	case e.Number > v.number+2:
		v.problem(v.number+1, "it and all up to row %d are missing", e.Number-1)
	case e.Number <= v.number:
		v.problem(e.Number, "it comes after row %d", v.number)
	}
	// Behind a gap the chain can't be computed, and the gap is reported already.
	if follows := e.Number == v.number+1; follows && storage.AuditNext(v.chain, e.row()) != e.Chain {
		v.problem(e.Number, "its chain is not that of what it says and of the row before: one of the two was changed, or moved here")
	}
	v.number, v.chain = e.Number, e.Chain
	v.expected = slices.DeleteFunc(v.expected, func(x expected) bool {
		if x.Number == e.Number && x.Chain != e.Chain {
			v.problem(e.Number, "%s", x.other)
		}
		return x.Number == e.Number
	})
	v.history(e)
}

// history holds a row against the former one of the same policy store, or of the directory.
func (v *Verifier) history(e *Entry) {
	p := partition{e.PolicyStoreID, e.Incarnation}
	was := v.last[p]
	if !e.isCommit() {
		if e.Revision != was.revision || e.Head != was.head {
			v.problem(e.Number, "it moves the history of %s, which %s does not do", e.where(), e.Operation)
		}
		was.fenced = true
		switch e.Operation {
		case storage.OperationFence:
			v.last[p] = was
		case storage.OperationErase:
			v.report.Erased += uint64(len(v.silent[p]))
			delete(v.silent, p)
			delete(v.last, p)
		}
		return
	}
	// What the row says is taken for the next one's former, so that a mistake is reported once.
	v.last[p] = state{revision: e.Revision, head: e.Head}
	if e.Revision != was.revision+1 {
		v.problem(e.Number, "it takes %s from revision %d to %d", e.where(), was.revision, e.Revision)
		return
	}
	if len(e.Changes) == 0 && e.Writes > 0 {
		v.silent[p] = append(v.silent[p], e.Number)
		return
	}
	// Commitments stay when rows are forgotten, so the head can be computed again as long as the history is there.
	commitments := make([][32]byte, len(e.Changes))
	for n := range e.Changes {
		commitments[n] = e.Changes[n].After
		if e.Changes[n].Erased() {
			v.report.Erased++
		}
	}
	if len(commitments) != e.Writes || storage.ChainNext(was.head, e.Revision, commitments) != e.Head {
		v.problem(e.Number, "what it is said to have changed is not what it did")
	}
}

func (e *Entry) where() string {
	if e.PolicyStoreID == "" {
		return "the directory"
	}
	return "policy store " + string(e.PolicyStoreID)
}

// Done ends a verification. Of rows up to settled, all later ones up to some moment after they were read must
// have been added: only then does the verifier know whether a change is missing with its policy store.
func (v *Verifier) Done(settled uint64) Report {
	for _, x := range v.expected {
		if x.Number > 0 {
			v.problem(x.Number, "%s", x.missing)
		}
	}
	for p, numbers := range v.silent {
		for _, n := range numbers {
			switch {
			case v.last[p].fenced:
				v.report.Erased++
			case n <= settled:
				v.problem(n, "what it changed is not there any more, and its policy store was not deleted")
			}
		}
	}
	slices.SortStableFunc(v.report.Problems, func(x, y Problem) int { return cmp.Compare(x.Number, y.Number) })
	v.report.Head = fmt.Sprintf("%d:%s", v.number, hex.EncodeToString(v.chain[:]))
	return v.report
}
