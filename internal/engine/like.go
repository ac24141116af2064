package engine

import (
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// pattern is what `like` matches a text with: parts that follow each other, with anything between them. It
// is made once, with the policy, and not changed any more.
type pattern struct {
	start, end string // "" is anything
	middle     []chunk
	exact      bool // there is no wildcard: start is the whole text
}

// chunk is a part of a pattern with a wildcard on either side.
type chunk struct {
	text string
	// retry is for long ones the Knuth-Morris-Pratt table: how much of the part still fits when the
	// next byte does not. It makes a search linear where nobody would write the worst case by accident.
	retry []int32
}

// longChunk is how many bytes a part may have before a search by comparing it at each byte is too dear.
const longChunk = 32

// newPattern takes a pattern apart by its JSON form: cedar-go shows its parts in no other way.
func newPattern(p types.Pattern) pattern {
	written, err := p.MarshalJSON()
	if err != nil {
		panic("engine: a pattern that can't be written: " + err.Error())
	}
	var parts []jsontext.Value
	if err := json.Unmarshal(written, &parts); err != nil {
		panic("engine: a pattern that can't be read: " + err.Error())
	}
	var out pattern
	// The texts between the wildcards, and before the first and behind the last: any of them may be empty.
	texts := []string{""}
	for _, part := range parts {
		var literal struct{ Literal string }
		// A wildcard is written as a word, a text as an object.
		if part.Kind() == '"' {
			texts = append(texts, "")
		} else if err := json.Unmarshal(part, &literal); err != nil {
			panic("engine: a pattern that can't be read: " + err.Error())
		} else {
			texts[len(texts)-1] += literal.Literal
		}
	}
	last := len(texts) - 1
	out.start, out.exact = texts[0], last == 0
	if last > 0 {
		out.end = texts[last]
		for _, text := range texts[1:last] {
			// Wildcards side by side are as one.
			if text != "" {
				out.middle = append(out.middle, newChunk(text))
			}
		}
	}
	return out
}

// newChunk prepares the search for a part. Short ones are left to the standard library.
func newChunk(text string) chunk {
	k := chunk{text: text}
	if len(text) <= longChunk {
		return k
	}
	k.retry = make([]int32, len(text))
	fits := 0
	for i := 1; i < len(text); i++ {
		for fits > 0 && text[i] != text[fits] {
			fits = int(k.retry[fits-1])
		}
		if text[i] == text[fits] {
			fits++
		}
		k.retry[i] = int32(fits)
	}
	return k
}

// weight is about what a pattern holds in memory.
func (p *pattern) weight() int64 {
	total := sizeClass(len(p.start)) + sizeClass(len(p.end))
	for _, k := range p.middle {
		total += 48 + sizeClass(len(k.text)) + 4*int64(len(k.retry))
	}
	return total
}

// match reports whether a text fits. Each part is taken where it fits first, which leaves the most to
// those behind it. What is in between may be anything, so no other way has to be tried.
func (p *pattern) match(text string) bool {
	if p.exact {
		return text == p.start
	}
	// Each is cut off what the others leave: no two may overlap.
	rest, ok := strings.CutPrefix(text, p.start)
	if !ok {
		return false
	}
	if rest, ok = strings.CutSuffix(rest, p.end); !ok {
		return false
	}
	for i := range p.middle {
		behind := p.middle[i].find(rest)
		if behind < 0 {
			return false
		}
		rest = rest[behind:]
	}
	return true
}

// find returns where the part ends in the text, or -1. The part is not empty.
func (k *chunk) find(text string) int {
	if k.retry == nil {
		at := strings.Index(text, k.text)
		if at < 0 {
			return -1
		}
		return at + len(k.text)
	}
	fits := 0
	for i := range len(text) {
		for fits > 0 && text[i] != k.text[fits] {
			fits = int(k.retry[fits-1])
		}
		if text[i] == k.text[fits] {
			if fits++; fits == len(k.text) {
				return i + 1
			}
		}
	}
	return -1
}

// like matches a String; another value is a fault. The pattern is part of the policy and never of the
// request.
func (c *compiler) like(of term, p types.Pattern) test {
	pattern := newPattern(p)
	c.weight += bytesOfPattern + pattern.weight()
	return func(c *call) verdict {
		c.steps++
		v := c.want(of, kindString, wantString)
		if v == nil {
			return failed
		}
		// Each byte of the text is looked at once, and twice at worst.
		c.steps += len(pattern.middle) + len(v.text)/8
		return c.affordable(verdictIf(pattern.match(v.text)))
	}
}
