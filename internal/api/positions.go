package api

import (
	"fmt"
	"strconv"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// A position in the decision log or the audit log is a number that counts what the whole server did. Whoever has a key
// of everything gets it as it is, and can count with it. To all others it would tell how much the other tenants do, so
// they get it sealed, good for the same list and key.

// The lists whose positions these are: one of the decision log opens nothing in the audit log.
const (
	listDecisions = "decisions"
	listAudit     = "audit"
)

// position is a number as a caller gets it. The digits are filled up so that the length of a sealed one
// tells nothing about the number.
func (a *API) position(c access.Caller, list string, n uint64) string {
	if c.Scope.All {
		return strconv.FormatUint(n, 10)
	}
	return a.access.SealPage("position "+list+" "+c.KeyID, fmt.Sprintf("%020d", n)) // of one length
}

// earlierPosition is position, and empty for 0: there is nothing earlier.
func (a *API) earlierPosition(c access.Caller, list string, n uint64) string {
	if n == 0 {
		return ""
	}
	return a.position(c, list, n)
}

// number is what a caller brings back; Invalid when it was not given to this caller. parameter is named
// in the error. Empty is 0, the beginning or no bound at all, as the list has it.
func (a *API) number(c access.Caller, list, parameter, text string) (uint64, error) {
	var err error
	if text != "" && !c.Scope.All {
		text, err = a.access.OpenPage("position "+list+" "+c.KeyID, text)
	}
	if text == "" && err == nil {
		return 0, nil
	}
	// A token that does not open and a number that is none are one answer.
	n, parseErr := strconv.ParseUint(text, 10, 64)
	if err != nil || parseErr != nil {
		return 0, &copse.Error{Kind: copse.Invalid, Detail: parameter + " is not one of this list's",
			Fields: []copse.Field{{Path: "query." + parameter, Message: "send the value exactly as an earlier answer to the same key had it"}}}
	}
	return n, nil
}

// numberFor is the number of a line or row as a caller gets it: 0, which is left out, for those to whom it would tell of others.
func numberFor(c access.Caller, n uint64) uint64 {
	if c.Scope.All {
		return n
	}
	return 0
}
