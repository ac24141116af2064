package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// Filter says which decisions are wanted; empty members take any.
type Filter struct {
	// May is asked about every decision: what a caller's key covers.
	May func(id copse.PolicyStoreID, tenant copse.TenantID) bool

	Tenant              copse.TenantID
	PolicyStoreID       copse.PolicyStoreID
	Principal, Resource []string // any of these, in full, as the lines have them
	Action, Decision    string
	From, To            time.Time
	After               uint64 // lines with greater numbers only, the first ones
	Before              uint64 // lines with smaller numbers only
}

// Found is a decision and the number of its line. The number counts all tenants' lines: it is not for everybody's eyes.
type Found struct {
	N     uint64
	Entry jsontext.Value
}

// Decision reads the entry.
func (f *Found) Decision() (d Decision, err error) {
	err = json.Unmarshal(f.Entry, &d)
	return d, err
}

// Results are what a search found, the oldest first.
type Results struct {
	Found []Found
	// Next as After continues with what comes later; nothing up to it is missed.
	Next uint64
	// Before, as that of the filter, continues with what was earlier. 0: there is nothing earlier to look at.
	Before uint64
}

// What searches may cost: the rest of the server has the same processors.
const (
	searchBytes = 64 << 20 // of lines read by one, beyond which it ends where it is
	searches    = 2        // at a time
	searchWait  = 5 * time.Second
	chunkBytes  = 256 << 10
	// clockSlack is how much earlier a decision's time may be than its line: longer than any request takes.
	clockSlack = lateDecisions
)

// Search returns the last limit decisions that a filter takes, or with After the first. It reads at most
// about [searchBytes], so that it may find fewer, and says where to go on.
func (l *Log) Search(ctx context.Context, f *Filter, limit int) (out Results, err error) {
	if l == nil {
		return Results{}, nil
	}
	if err := l.turn(ctx); err != nil {
		return Results{}, err
	}
	defer func() { <-l.searching }()
	// What leaves is not found, whoever asks, though its lines are in the files for a while.
	shown, may := *f, f.May
	shown.May = func(id copse.PolicyStoreID, tenant copse.TenantID) bool {
		_, gone := l.gone.Load(id)
		return !gone && may(id, tenant)
	}
	f = &shown
	s := search{Filter: f, ctx: ctx, limit: limit, before: f.Before, budget: l.budget}
	if s.marks, err = f.marks(); err != nil {
		return Results{}, err
	}
	if s.before == 0 {
		s.before = math.MaxUint64
	}
	l.drain() // a decision that was answered before this call is found by it
	chunks, last, err := l.chunks()
	if err != nil {
		return Results{}, err
	}
	chunks = slices.DeleteFunc(chunks, s.elsewhere)
	if f.After > 0 {
		return s.forward(chunks, max(last, f.After))
	}
	return s.backward(chunks, last)
}

// turn waits until fewer than [searches] are under way.
func (l *Log) turn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	select {
	case l.searching <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &copse.Error{Kind: copse.Throttled, Detail: "too many searches of the decision log are under way; try again", Err: ctx.Err()}
	}
}

// chunk is a part of the log that is read as a whole: a closed segment, or a piece of the open one.
type chunk struct {
	file        segmentFile
	at          int64  // of its first line
	first, past uint64 // numbers of its lines: first, and one more than the last
	began       time.Time
	ended       time.Time // not before its last line was written; zero: not known
}

// chunks are all of the log, in order, and the number of its last line.
func (l *Log) chunks() (out []chunk, last uint64, err error) {
	w := &l.writer
	w.mu.Lock()
	open, marks := w.segment, slices.Clone(w.marks)
	if w.file == nil {
		open++ // what is there is closed
	}
	last = w.n
	w.mu.Unlock()
	l.files.Lock() // an erasure that has ended is seen by every search after it
	defer l.files.Unlock()
	files, err := segments(l.cfg.Dir)
	if err != nil {
		return nil, 0, err
	}
	heads := make(map[uint64]Line, len(files))
	for _, f := range files {
		if f.number > open {
			break // begun since
		}
		head, ok := l.heads[f.number]
		if !ok {
			if head, err = f.head(); err != nil {
				return nil, 0, err
			}
		}
		heads[f.number] = head
		if n := len(out); n > 0 {
			out[n-1].past, out[n-1].ended = head.First, head.Began
		}
		out = append(out, chunk{file: f, first: head.First, began: head.Began})
	}
	l.heads = heads // those of segments that went are forgotten
	if n := len(out); n > 0 {
		out[n-1].past = last + 1
		for _, m := range marks {
			if out[n-1].file.number != open || m.n <= out[n-1].first {
				continue
			}
			piece := out[len(out)-1]
			out[len(out)-1].past, out[len(out)-1].ended = m.n, m.when
			piece.first, piece.at, piece.began = m.n, m.at, m.when
			out = append(out, piece)
		}
	}
	return out, last, nil
}

// head reads a segment's first line, and the second of one that does not say its number.
func (f segmentFile) head() (head Line, err error) {
	_, err = f.eachLine(0, func(text []byte, at int64) error {
		if at > 0 {
			head.First = numberOf(text)
		} else if err := json.Unmarshal(text, &head); err != nil {
			return err
		}
		if head.First == 0 {
			return nil
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return head, err
}

// search is one under way.
type search struct {
	*Filter
	ctx    context.Context
	limit  int
	before uint64
	marks  [][][]byte
	read   int64
	budget int64
}

// elsewhere: nothing in the chunk is asked for.
func (s *search) elsewhere(c chunk) bool {
	return c.past <= s.After+1 || c.first >= s.before ||
		!s.From.IsZero() && !c.ended.IsZero() && c.ended.Before(s.From) ||
		!s.To.IsZero() && c.began.Add(-clockSlack).After(s.To)
}

// forward reads from the oldest chunk on, until there is enough or it has read as much as it may.
func (s *search) forward(chunks []chunk, last uint64) (Results, error) {
	out := Results{Next: last}
	for i, c := range chunks {
		part, err := s.in(c)
		if err != nil {
			return Results{}, err
		}
		if out.Found = append(out.Found, part...); len(out.Found) >= s.limit {
			out.Found = out.Found[:s.limit]
			out.Next = out.Found[s.limit-1].N
			return out, nil
		}
		if s.read > s.budget && i < len(chunks)-1 {
			out.Next = max(c.past-1, s.After)
			return out, nil
		}
	}
	return out, nil
}

// backward reads from the newest chunk back. The order within the answer is that of the log all the same.
func (s *search) backward(chunks []chunk, last uint64) (Results, error) {
	out := Results{Next: last}
	for i, c := range slices.Backward(chunks) {
		part, err := s.in(c)
		if err != nil {
			return Results{}, err
		}
		out.Found = append(part, out.Found...)
		if len(out.Found) >= s.limit {
			out.Found = out.Found[len(out.Found)-s.limit:]
			out.Before = out.Found[0].N
			return out, nil
		}
		if s.read > s.budget && i > 0 {
			out.Before = c.first
			return out, nil
		}
	}
	return out, nil
}

var (
	errEnough = errors.New("enough")
	errMoved  = errors.New("the lines are elsewhere now")
)

// in searches a chunk. Its segment may have been compressed, erased from or retired since it was listed.
func (s *search) in(c chunk) ([]Found, error) {
	found, err := s.lines(c)
	if errors.Is(err, fs.ErrNotExist) && !c.file.compressed() {
		c.file.path, c.at = strings.TrimSuffix(c.file.path, plainSuffix)+gzipSuffix, 0
		found, err = s.lines(c)
	}
	if errors.Is(err, errMoved) {
		c.at = 0
		found, err = s.lines(c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return found, err
}

// lines searches those of a chunk, for no more than can be in the answer.
func (s *search) lines(c chunk) (found []Found, err error) {
	count := 0
	_, err = c.file.eachLine(c.at, func(text []byte, at int64) error {
		s.read += int64(len(text))
		if count++; count%1000 == 0 && s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		n := numberOf(text)
		switch {
		case at == c.at && at > 0 && n != c.first:
			return errMoved
		case n == 0:
			return nil // a head or a seal
		case n >= c.past || n >= s.before:
			return errEnough
		case n <= s.After || n < c.first || !s.mayMatch(text):
			return nil
		}
		var line Line
		if err := json.Unmarshal(text, &line); err != nil {
			return err
		}
		var d Decision
		if err := json.Unmarshal(line.Entry, &d); err != nil {
			return err
		}
		if !s.takes(&d) {
			return nil
		}
		found = append(found, Found{line.N, line.Entry})
		switch {
		case len(found) < 2*s.limit:
		case s.After > 0:
			return errEnough
		default:
			found = append(found[:0], found[len(found)-s.limit:]...)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// numberOf is a line's number, which stands first; 0 for a head or a seal.
func numberOf(text []byte) uint64 {
	rest, ok := bytes.CutPrefix(text, []byte(`{"n":`))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 0 {
		return 0
	}
	n, _ := strconv.ParseUint(string(rest[:end]), 10, 64)
	return n
}

// mayMatch: reading JSON costs the most, so what can't match is passed over by its bytes.
func (s *search) mayMatch(text []byte) bool {
	for _, any := range s.marks {
		if !slices.ContainsFunc(any, func(mark []byte) bool { return bytes.Contains(text, mark) }) {
			return false
		}
	}
	return bytes.Contains(text, []byte(`"entry":{"kind":"decision"`))
}

// marks are what a line must have of each group to be worth reading.
func (f *Filter) marks() (groups [][][]byte, err error) {
	for _, any := range [][]string{{string(f.Tenant)}, {string(f.PolicyStoreID)}, f.Principal, {f.Action}, f.Resource, {f.Decision}} {
		var marks [][]byte
		for _, value := range any {
			if value == "" {
				continue
			}
			quoted, err := json.Marshal(value)
			if err != nil {
				return nil, copse.Errorf(copse.Invalid, "the filter %q is not UTF-8", value)
			}
			marks = append(marks, quoted)
		}
		if len(marks) > 0 {
			groups = append(groups, marks)
		}
	}
	return groups, nil
}

// takes is the filter itself, on what was read as JSON; marks only spare reading.
func (f *Filter) takes(d *Decision) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	any := func(want []string, got string) bool { return len(want) == 0 || slices.Contains(want, got) }
	return f.May(d.PolicyStoreID, d.Tenant) &&
		is(string(f.Tenant), string(d.Tenant)) && is(string(f.PolicyStoreID), string(d.PolicyStoreID)) &&
		any(f.Principal, d.Principal) && is(f.Action, d.Action) && any(f.Resource, d.Resource) && is(f.Decision, d.Decision) &&
		(f.From.IsZero() || !d.Time.Before(f.From)) && (f.To.IsZero() || d.Time.Before(f.To))
}
