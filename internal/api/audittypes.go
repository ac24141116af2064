package api

import "time"

// AuditChange is one item that was written. Commitments are SHA-256 over a salt and the item, 32 bytes in
// base 64.
type AuditChange struct {
	Kind    string `json:"kind,omitempty" example:"policy" doc:"Absent once it is erased."`
	ID      string `json:"id,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
	Erased  bool   `json:"erased,omitempty" doc:"Only the commitment is left."`
	Before  []byte `json:"before,omitempty" doc:"The commitment to what it was; absent when it was not there, or that is erased."`
	After   []byte `json:"after" doc:"The commitment to what it became."`
}

// FailedKeyUse is how often one access key was used in vain.
type FailedKeyUse struct {
	Key    string `json:"key" doc:"Id of the access key; others beyond the number that is told apart, malformed for what is no id."`
	Reason string `json:"reason" example:"InvalidCredential"`
	Count  uint64 `json:"count"`
}

// FailedKeyUses are those of about a minute.
type FailedKeyUses struct {
	From time.Time      `json:"from"`
	To   time.Time      `json:"to"`
	Uses []FailedKeyUse `json:"uses" nullable:"false"`
}

// AuditRow is one change of what is stored: by whom, of what kind, where; never what was written.
type AuditRow struct {
	Number        uint64         `json:"number,omitzero" doc:"Counts from 1, without gaps; for keys of everything."`
	Time          string         `json:"time" format:"date-time" doc:"To the nanosecond, in nine digits: it is part of what is hashed."`
	Actor         string         `json:"actor" doc:"Id of the access key; system is copse itself, user somebody who chose among their tenants."`
	RequestID     string         `json:"requestId,omitempty" doc:"Absent when copse did it by itself."`
	Operation     string         `json:"operation" example:"PutContents"`
	PolicyStoreID string         `json:"policyStoreId,omitempty" doc:"What was changed; absent when that is the directory: tenants, issuers, access keys, plans, members."`
	Incarnation   string         `json:"incarnation" doc:"Of the policy store or directory."`
	Revision      uint64         `json:"revision" doc:"Of the policy store or directory, after the change."`
	Writes        int            `json:"writes" doc:"How many items were written."`
	Changes       []AuditChange  `json:"changes" nullable:"false" doc:"The items, in order; none when their policy store was deleted since."`
	FailedUses    *FailedKeyUses `json:"failedUses,omitempty" doc:"Uses of access keys that failed, which the row is the record of."`
	Head          []byte         `json:"head" doc:"The history chain after the change: it binds all commitments so far. 32 bytes in base 64."`
	Chain         []byte         `json:"chain" doc:"SHA-256 over the chain of the row before and this row, 32 bytes in base 64."`
}

// AuditEnd is where the log ends.
type AuditEnd struct {
	Number uint64 `json:"number"`
	Chain  []byte `json:"chain"`
}

// AuditPage is a page of the audit log.
type AuditPage struct {
	Rows    []AuditRow `json:"rows" nullable:"false" doc:"The oldest first."`
	Next    string     `json:"next" doc:"As after, it asks for what comes after."`
	Earlier string     `json:"earlier,omitzero" doc:"As before, it asks for what came before. Absent: nothing did."`
	AtEnd   bool       `json:"atEnd" doc:"With after: no row that this key might see came after this page."`
	End     *AuditEnd  `json:"end,omitempty" doc:"For keys with admin everywhere."`
}
