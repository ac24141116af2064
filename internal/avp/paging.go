package avp

import (
	"strconv"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// Paging of lists: AVP's defaults and its most.
const (
	defaultResults = 10
	maxResults     = 50
)

// pageInput is what every List operation takes to page.
type pageInput struct {
	MaxResults *int    `json:"maxResults"`
	NextToken  *string `json:"nextToken"`
}

// validate does not open the token; that is for [listing.start], which knows the call.
func (in *pageInput) validate(f *findings) {
	if in.NextToken != nil {
		f.text("nextToken", *in.NextToken, 1, 8000)
	}
	if in.MaxResults != nil && *in.MaxResults < 1 {
		f.add("maxResults", "Member must be greater than or equal to 1")
	}
}

// size is how many items a page has at most. More than AVP allows is taken as the most. usual is the
// page of a caller who does not say; what comes back is at least 1.
func (in *pageInput) size(usual int) int {
	if in.MaxResults == nil {
		return usual
	}
	return min(*in.MaxResults, maxResults)
}

// listing is one call of a List operation: its tokens open for the same operation, caller and parameters
// only, and hold nothing but the id of the last item that was looked at. Lists are in order of id, so
// whatever is written between two pages, what was there before and still is appears exactly once.
type listing struct {
	h    *handler
	call string
}

// list names every parameter that shapes the list. Quoting keeps two lists of parameters from being one
// text. The key's id is in it, so that a token which leaked is of no use to others.
func (h *handler) list(operation string, c access.Caller, parameters ...string) listing {
	call := operation + " " + c.KeyID
	for _, p := range parameters {
		call += " " + strconv.Quote(p)
	}
	return listing{h, call}
}

// start is the id after which the page begins; empty for the first page. Its error for a token that
// does not open is the caller's; any other is passed on.
func (l listing) start(in *pageInput) (string, error) {
	if in.NextToken == nil {
		return "", nil
	}
	position, err := l.h.access.OpenPage(l.call, *in.NextToken)
	if err != nil && copse.KindOf(err) == copse.Invalid {
		var f findings
		f.add("nextToken", "the token was not issued for this call; start again without one")
		return "", f.err()
	}
	return position, err
}

// next is the answer's nextToken: none after the last page. last is sealed, not just encoded: it may be
// the id of something that the caller was not shown.
func (l listing) next(more bool, last string) string {
	if !more {
		return ""
	}
	return l.h.access.SealPage(l.call, last)
}
