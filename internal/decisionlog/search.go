package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
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
	After               uint64 // lines with greater numbers only
}

// Found is a decision and the number of its line.
type Found struct {
	N     uint64
	Entry jsontext.Value
}

// Decision reads the entry.
func (f *Found) Decision() (d Decision, err error) {
	err = json.Unmarshal(f.Entry, &d)
	return d, err
}

// Search returns the last limit decisions that a filter takes, the oldest first, and the number of the log's
// last line at least: a search for what came after it misses nothing. With After it is the first limit.
func (l *Log) Search(ctx context.Context, f *Filter, limit int) (found []Found, last uint64, err error) {
	if l == nil {
		return nil, 0, nil
	}
	shown, may := *f, f.May
	shown.May = func(id copse.PolicyStoreID, tenant copse.TenantID) bool {
		_, gone := l.gone.Load(id)
		return !gone && may(id, tenant)
	}
	f = &shown
	l.flush()
	l.writer.mu.Lock()
	last = l.writer.n
	l.writer.mu.Unlock()
	l.files.Lock() // an erasure that has ended is seen by every search after it
	files, err := segments(l.cfg.Dir)
	l.files.Unlock()
	if err != nil {
		return nil, 0, err
	}
	forward := f.After > 0
	if !forward {
		slices.Reverse(files)
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		part, err := f.in(ctx, file, limit)
		if errors.Is(err, fs.ErrNotExist) { // compressed or retired since
			if !file.compressed() {
				file.path = strings.TrimSuffix(file.path, plainSuffix) + gzipSuffix
				part, err = f.in(ctx, file, limit)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return nil, 0, err
		}
		if forward {
			if found = append(found, part...); len(found) >= limit {
				found = found[:limit]
				return found, found[limit-1].N, nil
			}
			continue
		}
		found = append(part, found...)
		if len(found) >= limit {
			return found[len(found)-limit:], last, nil
		}
		if !f.From.IsZero() && len(part) == 0 && file.endsBefore(f.From) {
			break
		}
	}
	return found, last, nil
}

// endsBefore: nothing in the segment is as late as t.
func (f segmentFile) endsBefore(t time.Time) bool {
	info, err := os.Stat(f.path)
	return err == nil && info.ModTime().Before(t)
}

// in searches a segment, for no more than can be in the answer.
func (f *Filter) in(ctx context.Context, file segmentFile, limit int) (found []Found, err error) {
	// Reading JSON costs the most: what can't match is passed over by its bytes.
	marks, err := f.marks()
	if err != nil {
		return nil, err
	}
	lines := 0
	_, err = file.eachLine(func(text []byte, _ int64) error {
		if lines++; lines%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for _, any := range marks {
			if !slices.ContainsFunc(any, func(mark []byte) bool { return bytes.Contains(text, mark) }) {
				return nil
			}
		}
		if !bytes.Contains(text, []byte(`"entry":{"kind":"decision"`)) {
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
		if line.N > f.After && f.takes(&d) {
			found = append(found, Found{line.N, line.Entry})
		}
		switch {
		case len(found) < 2*limit:
		case f.After > 0:
			return errEnough
		default:
			found = append(found[:0], found[len(found)-limit:]...)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// marks are what a line must have of each group to be worth reading.
func (f *Filter) marks() (groups [][][]byte, err error) {
	for _, any := range [][]string{{string(f.Tenant)}, {string(f.PolicyStoreID)}, f.Principal, {f.Action}, f.Resource} {
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

var errEnough = errors.New("enough")

func (f *Filter) takes(d *Decision) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	any := func(want []string, got string) bool { return len(want) == 0 || slices.Contains(want, got) }
	return f.May(d.PolicyStoreID, d.Tenant) &&
		is(string(f.Tenant), string(d.Tenant)) && is(string(f.PolicyStoreID), string(d.PolicyStoreID)) &&
		any(f.Principal, d.Principal) && is(f.Action, d.Action) && any(f.Resource, d.Resource) && is(f.Decision, d.Decision) &&
		(f.From.IsZero() || !d.Time.Before(f.From)) && (f.To.IsZero() || d.Time.Before(f.To))
}
