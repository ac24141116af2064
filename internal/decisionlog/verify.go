package decisionlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// Report is what a verification found.
type Report struct {
	Segments int    `json:"segments"`
	Lines    uint64 `json:"lines"`    // all of them, events and erased ones included
	Erased   uint64 `json:"erased"`   // lines of policy stores that are gone
	Lost     uint64 `json:"lost"`     // decisions without a line, as the log itself says
	AtLeast  bool   `json:"atLeast"`  // more of them may be missing: the machine stopped
	Unsigned uint64 `json:"unsigned"` // lines after the last seal
	// Resumed counts lines that a process left without a seal when it was killed, and that the next one signed. Up to then
	// whoever could write the file could write them.
	Resumed uint64 `json:"resumed"`
	Head    string `json:"head"` // "n:chain" of the last seal, for the next verification to demand

	Problems []Problem `json:"problems"`
}

// Problem is something that is not as it was written.
type Problem struct {
	Segment uint64 `json:"segment"`
	Line    uint64 `json:"line,omitzero"` // its number, 0 for the segment as a whole
	What    string `json:"what"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("segment %d: %s", p.Segment, p.What)
	}
	return fmt.Sprintf("segment %d, line %d: %s", p.Segment, p.Line, p.What)
}

// Verify reads all segments of a directory and checks that nothing in them was changed, left out or put
// elsewhere since it was sealed. It needs the public keys and nothing of the server. head, when not empty, is
// the Head of an earlier report: the log must still contain it, which finds a log whose end was cut off.
func Verify(dir string, keys map[string]ed25519.PublicKey, head string) (*Report, error) {
	v := verifier{keys: keys, report: &Report{Problems: []Problem{}}, erased: map[uint64]*erasedLines{}}
	if err := v.demand(head); err != nil {
		return nil, err
	}
	files, err := segments(dir)
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	for i, f := range files {
		v.segment(f, i == len(files)-1)
	}
	v.finish(files)
	return v.report, nil
}

// erasedLines is what a segment shows to be erased, and what events say: the last, or the one before it
// while an erasure is under way.
type erasedLines struct {
	count   uint64
	numbers hash.Hash
	said    []event
}

// verifier walks all lines once and keeps what can only be judged at the end: what is erased, and what was retired. After a
// fault it goes on from what the log says next, so that a report has each fault once and not everything after it.
type verifier struct {
	keys   map[string]ed25519.PublicKey
	report *Report
	position
	started  bool
	first    uint64 // segment
	retired  uint64 // as the log says
	erased   map[uint64]*erasedLines
	demanded struct {
		n     uint64
		chain string
		met   bool
	}
	head      [32]byte // SHA-256 of the segment's first line
	headFault bool     // and that was said
	sinceSeal uint64
	resumed   uint64 // of those, as the last start said
	closed    bool
	// unsealed are events that say what was erased or retired, and count once a seal is over them: the log signs them
	// before it does so, and anybody could write one behind the last seal.
	unsealed []event
}

// demand reads the head that the log must still contain.
func (v *verifier) demand(head string) error {
	if head == "" {
		v.demanded.met = true
		return nil
	}
	n, chain, ok := strings.Cut(head, ":")
	var err error
	v.demanded.n, err = strconv.ParseUint(n, 10, 64)
	if _, hexErr := hex.DecodeString(chain); !ok || err != nil || hexErr != nil || len(chain) != 64 {
		return copse.Errorf(copse.Invalid, "the head %q is not one that a verification printed", head)
	}
	v.demanded.chain = chain
	return nil
}

// problem notes what is wrong, and where: in the segment that is being read, at a line or, with 0, as a whole.
func (v *verifier) problem(line uint64, format string, args ...any) {
	v.report.Problems = append(v.report.Problems, Problem{Segment: v.position.segment, Line: line, What: fmt.Sprintf(format, args...)})
}

// of is what is known about erased lines of a segment, which events may speak of before or after it is read.
func (v *verifier) of(segment uint64) *erasedLines {
	e, ok := v.erased[segment]
	if !ok {
		e = &erasedLines{numbers: sha256.New()}
		v.erased[segment] = e
	}
	return e
}

// segment holds a file against the one before it. All but the last must be closed by a seal; the last may end in lines that
// are not sealed yet, and in half a line, as a process that was killed leaves it.
func (v *verifier) segment(f segmentFile, last bool) {
	former := v.position.segment
	v.position.segment = f.number
	v.report.Segments++
	switch {
	case v.first == 0:
		v.first = f.number
	case f.number != former+1:
		v.problem(0, "the %d segments before it are missing", f.number-former-1)
	case !v.closed:
		v.problem(0, "the segment before it has no end")
	}
	v.closed, v.sinceSeal, v.resumed = false, 0, 0
	head := false
	torn, err := f.eachLine(0, func(text []byte, _ int64) error {
		var line Line
		if err := json.Unmarshal(text, &line, json.RejectUnknownMembers(true)); err != nil {
			v.problem(v.n+1, "can't be read: %v", err)
			return nil
		}
		if !line.isOneKind(!head) {
			v.problem(v.n+1, "is more than one kind of line at once, or none: it was changed")
		}
		switch {
		case !head:
			head = true
			v.head, v.headFault = sha256.Sum256(text), false
			v.begins(&line)
		case v.closed:
			v.problem(line.N, "stands after the segment's end")
		case line.Seal != nil:
			v.seal(line.Seal)
		default:
			v.line(&line)
		}
		return nil
	})
	if err != nil {
		v.problem(0, "can't be read: %v", err)
	}
	if torn && !last {
		v.problem(0, "its last line is cut off")
	}
	if last {
		v.report.Unsigned = v.sinceSeal
	} else if v.sinceSeal > 0 {
		v.problem(0, "its last %d lines are not signed", v.sinceSeal)
	}
}

// begins takes a segment's first line, which carries the chain over from the segment before: so segments can be retired from the
// front and what is left still verifies.
func (v *verifier) begins(line *Line) {
	if line.Segment != v.position.segment {
		v.problem(0, "calls itself segment %d", line.Segment)
	}
	var after [32]byte
	if err := readHash(&after, line.After); err != nil {
		v.problem(0, "its first line does not say what it follows")
		return
	}
	if v.started && after != v.chain {
		v.problem(0, "does not follow the segment before it")
	}
	v.chain = after
}

// line adds to the chain what it commits to, which an erased line still has, and opens the commitment where salt and entry
// are there.
func (v *verifier) line(line *Line) {
	v.report.Lines++
	v.sinceSeal++
	if v.started && line.N != v.n+1 {
		v.problem(line.N, "stands after line %d", v.n)
	}
	v.started = true
	v.n = line.N
	var c [32]byte
	if err := readHash(&c, line.Commitment); err != nil {
		v.problem(line.N, "has no commitment")
	}
	v.chain = next(v.chain, line.N, line.Seq, c)
	if line.Erased {
		v.report.Erased++
		e := v.of(v.position.segment)
		e.count++
		_, _ = e.numbers.Write(binary.BigEndian.AppendUint64(nil, line.N))
		v.seq = line.Seq
		return
	}
	salt, err := hex.DecodeString(line.Salt)
	if err != nil || len(salt) != 16 || commitment([16]byte(salt), line.Entry) != c {
		v.problem(line.N, "was changed: it is not what its commitment was made of")
	}
	v.entry(line)
}

// entry checks that the count of decisions goes on without a gap, and keeps what events say.
func (v *verifier) entry(line *Line) {
	var e event
	if err := json.Unmarshal(line.Entry, &e); err != nil {
		v.problem(line.N, "its entry can't be read: %v", err)
		return
	}
	counts := uint64(0)
	switch e.Kind {
	case kindDecision:
		counts = 1
	case kindLost:
		counts = e.Count
		v.report.Lost += e.Count
		v.report.AtLeast = v.report.AtLeast || e.AtLeast
	case kindErased, kindRetired:
		v.unsealed = append(v.unsealed, e)
	case kindResumed:
		v.report.Resumed += e.Lines - min(v.resumed, e.Lines) // a second start that was killed too counts the first one's anew
		v.resumed = e.Lines
		if e.Lines != v.sinceSeal-1 {
			v.problem(line.N, "says that a start found %d lines without a signature, where there are %d", e.Lines, v.sinceSeal-1)
		}
	}
	if v.seq != 0 && line.Seq != v.seq+counts {
		v.problem(line.N, "accounts for %d decisions, where the lines before it and itself come to %d", line.Seq, v.seq+counts)
	}
	v.seq = line.Seq
}

// seal is the signature over all that came before it in the chain. Without a known key's, nothing says who wrote the lines.
func (v *verifier) seal(s *Seal) {
	key, known := v.keys[s.Key]
	switch {
	case !known:
		v.problem(v.n, "the seal after it is of key %q, which is not among those given", s.Key)
	case !s.signedBy(key):
		v.problem(v.n, "the seal after it is not signed by its key")
	case s.Segment != v.position.segment, v.started && (s.N != v.n || s.Seq != v.seq), s.Chain != hex.EncodeToString(v.chain[:]):
		v.problem(v.n, "the seal after it is of line %d of segment %d: lines were changed, left out or put elsewhere before it", s.N, s.Segment)
	case s.Head != "" && s.Head != hex.EncodeToString(v.head[:]):
		if !v.headFault {
			v.headFault = true
			v.problem(0, "its first line was changed: the signatures in it are over another")
		}
	default:
		v.believe()
	}
	v.unsealed = nil
	// What follows is judged from the seal on, so that one fault is reported once.
	if readHash(&v.chain, s.Chain) == nil {
		v.n, v.seq, v.started = s.N, s.Seq, true
	}
	v.closed, v.sinceSeal, v.resumed = s.Closed, 0, 0
	v.report.Head = strconv.FormatUint(s.N, 10) + ":" + s.Chain
	if s.N == v.demanded.n && s.Chain == v.demanded.chain {
		v.demanded.met = true
	}
}

// believe takes over what events say that a seal has just signed.
func (v *verifier) believe() {
	for _, e := range v.unsealed {
		if e.Kind == kindRetired {
			v.retired = max(v.retired, e.Segment)
			continue
		}
		of := v.of(e.Segment)
		of.said = append(of.said, e)
	}
}

// finish checks what takes the whole log: that what is erased or gone is what the log says is.
func (v *verifier) finish(files []segmentFile) {
	if len(files) > 0 && v.first > v.retired+1 {
		v.position.segment = v.first
		v.problem(0, "the segments before it are missing, and the log does not say that they were retired")
	}
	for number, e := range v.erased {
		if number < v.first {
			continue // retired since
		}
		v.position.segment = number
		digest := hex.EncodeToString(e.numbers.Sum(nil))
		// An erasure is announced before it is done. Between the two the lines are as the event before the last says, or
		// none is erased yet.
		met := e.count == 0 && len(e.said) == 1
		for _, said := range e.said[max(0, len(e.said)-2):] {
			met = met || said.Lines == e.count && said.Numbers == digest
		}
		if !met {
			v.problem(0, "%d of its lines are erased, which is not what the log says was erased", e.count)
		}
	}
	if !v.demanded.met {
		v.problem(0, "the log does not contain line %d as an earlier verification saw it: its end was cut off, or it is another log", v.demanded.n)
	}
}
