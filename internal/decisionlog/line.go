package decisionlog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// Line is one line of a segment: a head, a numbered line, or a seal.
type Line struct {
	Segment uint64 `json:"segment,omitzero"` // a head: the segment's number
	After   string `json:"after,omitzero"`   // a head: the chain before its first line
	// A head: its first line's number, and when the segment was begun. Searches leave out files by these.
	First uint64    `json:"first,omitzero"`
	Began time.Time `json:"began,omitzero"`

	N          uint64         `json:"n,omitzero"`   // of the line, from 1, in all segments
	Seq        uint64         `json:"seq,omitzero"` // decisions accounted for so far, those lost included
	Commitment string         `json:"commitment,omitzero"`
	Salt       string         `json:"salt,omitzero"`
	Entry      jsontext.Value `json:"entry,omitzero"`
	Erased     bool           `json:"erased,omitzero"`

	Seal *Seal `json:"seal,omitzero"`
}

// isOneKind reports whether a line has the members of its kind and no others: a head's, if it is the first of its
// segment, else a seal's, an erased line's or a numbered one's. What looks at one member only could take a line for one
// thing, and what looks at another for another thing.
func (l *Line) isOneKind(first bool) bool {
	head := l.Segment != 0 || l.After != "" || l.First != 0 || !l.Began.IsZero()
	numbered := l.N != 0 || l.Seq != 0 || l.Commitment != ""
	content := l.Salt != "" || len(l.Entry) > 0
	switch {
	case first:
		return head && !numbered && !content && !l.Erased && l.Seal == nil
	case l.Seal != nil:
		return !head && !numbered && !content && !l.Erased
	case l.Erased:
		return !head && numbered && !content
	default:
		return !head && numbered
	}
}

// Seal signs the chain up to where it stands.
type Seal struct {
	Segment   uint64 `json:"segment"`
	N         uint64 `json:"n"`
	Seq       uint64 `json:"seq"`
	Chain     string `json:"chain"`
	Closed    bool   `json:"closed,omitzero"` // nothing follows in this segment
	Head      string `json:"head,omitzero"`   // SHA-256 of the segment's first line; absent from logs that were begun before it was there
	Key       string `json:"key"`
	Signature string `json:"signature"`
}

func (s *Seal) message() []byte {
	// Two prefixes, so that a seal whose head is taken away is not another seal that verifies.
	begin := "copse decision log seal v1\x00"
	if s.Head != "" {
		begin = "copse decision log seal v2\x00" + s.Head
	}
	out := append([]byte(begin), s.Chain...)
	out = binary.BigEndian.AppendUint64(out, s.Segment)
	out = binary.BigEndian.AppendUint64(out, s.N)
	out = binary.BigEndian.AppendUint64(out, s.Seq)
	if s.Closed {
		return append(out, 1)
	}
	return append(out, 0)
}

func (s *Seal) sign(key ed25519.PrivateKey, id string) {
	s.Key = id
	s.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, s.message()))
}

func (s *Seal) signedBy(key ed25519.PublicKey) bool {
	signature, err := base64.StdEncoding.DecodeString(s.Signature)
	return err == nil && ed25519.Verify(key, s.message(), signature)
}

// commitment binds an entry without showing it. The salt has one length, so no two pairs are the same bytes.
func commitment(salt [16]byte, entry []byte) [32]byte {
	h := sha256.New()
	h.Write([]byte("copse decision log line v1\x00"))
	h.Write(salt[:])
	h.Write(entry)
	return [32]byte(h.Sum(nil))
}

// next is the chain after a line.
func next(chain [32]byte, n, seq uint64, commitment [32]byte) [32]byte {
	var b [80]byte
	copy(b[:], chain[:])
	binary.BigEndian.PutUint64(b[32:], n)
	binary.BigEndian.PutUint64(b[40:], seq)
	copy(b[48:], commitment[:])
	return sha256.Sum256(b[:])
}

// appendLine writes a numbered line without its newline.
func appendLine(out []byte, n, seq uint64, c [32]byte, salt [16]byte, entry []byte) []byte {
	out = append(out, `{"n":`...)
	out = strconv.AppendUint(out, n, 10)
	out = append(out, `,"seq":`...)
	out = strconv.AppendUint(out, seq, 10)
	out = append(out, `,"commitment":"`...)
	out = hex.AppendEncode(out, c[:])
	if entry == nil {
		return append(out, `","erased":true}`...)
	}
	out = append(out, `","salt":"`...)
	out = hex.AppendEncode(out, salt[:])
	out = append(out, `","entry":`...)
	out = append(out, entry...)
	return append(out, '}')
}

// Decision is an entry as it is read back. The order of members is that of appendEntry.
type Decision struct {
	Kind                string              `json:"kind"` // "decision"
	Time                time.Time           `json:"time"`
	RequestID           string              `json:"requestId"`
	Via                 string              `json:"via"`
	Key                 string              `json:"key,omitzero"`
	Tenant              copse.TenantID      `json:"tenant,omitzero"`
	PolicyStoreID       copse.PolicyStoreID `json:"policyStoreId"`
	Incarnation         string              `json:"incarnation,omitzero"`
	Revision            uint64              `json:"revision"`
	Principal           string              `json:"principal"`
	Action              string              `json:"action"`
	Resource            string              `json:"resource"`
	Context             jsontext.Value      `json:"context,omitzero"` // what rules keep of it, as of the attributes
	PrincipalAttributes jsontext.Value      `json:"principalAttributes,omitzero"`
	ResourceAttributes  jsontext.Value      `json:"resourceAttributes,omitzero"`
	Decision            string              `json:"decision"`
	Layer               string              `json:"layer"`
	Determining         []string            `json:"determining"`
	Errors              []string            `json:"errors"` // policies that could not be evaluated
	OverBudget          bool                `json:"overBudget,omitzero"`
	Micros              int64               `json:"micros"`
}

// event is an entry of the log's own.
type event struct {
	Kind string    `json:"kind"` // lost, erased, retired or resumed
	Time time.Time `json:"time"`

	Count   uint64 `json:"count,omitzero"`   // lost: how many decisions have no line
	Reason  string `json:"reason,omitzero"`  // lost: why
	AtLeast bool   `json:"atLeast,omitzero"` // lost: the machine stopped too, so that more may be missing

	Segment uint64 `json:"segment,omitzero"` // erased: the segment lines were taken out of; retired: the last that went
	Lines   uint64 `json:"lines,omitzero"`   // erased: how many of its lines are erased; resumed: see kindResumed
	Numbers string `json:"numbers,omitzero"` // erased: SHA-256 of their numbers
}

const (
	kindDecision = "decision"
	kindLost     = "lost"
	kindErased   = "erased"
	kindRetired  = "retired"
	// kindResumed comes first in what a start writes: so many lines before it had no seal, as a process leaves
	// them that was killed. The next seal is over them too, although whoever can write the file may have written them.
	kindResumed = "resumed"
)

// appendEntry writes a decision. Messages of evaluation errors are left out: they may quote attributes.
func appendEntry(out []byte, e *Entry) []byte {
	out = append(out, `{"kind":"decision","time":"`...)
	out = e.Time.UTC().AppendFormat(out, "2006-01-02T15:04:05.000000Z07:00")
	out = append(out, '"')
	text := func(name, value string) {
		out = append(append(append(out, `,"`...), name...), `":`...)
		out, _ = jsontext.AppendQuote(out, value) // invalid UTF-8 becomes U+FFFD
	}
	text("requestId", e.RequestID)
	text("via", e.Via)
	if e.Key != "" {
		text("key", e.Key)
	}
	if e.Tenant != "" {
		text("tenant", string(e.Tenant))
	}
	text("policyStoreId", string(e.PolicyStoreID))
	if !e.Incarnation.IsZero() {
		out = append(out, `,"incarnation":"`...)
		out = append(hex.AppendEncode(out, e.Incarnation[:]), '"')
	}
	out = strconv.AppendUint(append(out, `,"revision":`...), e.Response.Revision, 10)
	uid := func(name string, u types.EntityUID) { text(name, u.String()) }
	uid("principal", e.Principal)
	uid("action", e.Action)
	uid("resource", e.Resource)
	for _, part := range [...]struct {
		name string
		text []byte
	}{{"context", e.Context}, {"principalAttributes", e.PrincipalAttributes}, {"resourceAttributes", e.ResourceAttributes}} {
		if len(part.text) > 0 {
			out = append(append(append(append(out, `,"`...), part.name...), `":`...), part.text...)
		}
	}
	out = append(append(append(out, `,"decision":"`...), e.Response.Decision.String()...), `","layer":"tenant","determining":[`...)
	for i := range e.Response.Determining {
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, e.Response.Determining[i].ID)
	}
	out = append(out, `],"errors":[`...)
	for i := range e.Response.Errors {
		if i > 0 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, e.Response.Errors[i].Policy.ID)
	}
	out = append(out, ']')
	if e.Response.OverBudget {
		out = append(out, `,"overBudget":true`...)
	}
	out = strconv.AppendInt(append(out, `,"micros":`...), e.Latency.Microseconds(), 10)
	return append(out, '}')
}
