package storage

import (
	"context"
	"errors"
	"fmt"
)

// verifyPage is odd and small, so that pages end in all sorts of places.
const verifyPage = 19

// VerifyHistory walks a partition's history and holds every row against its commitment, and all of them
// against the chain in the head. What a backend verifies by itself while reading is verified again: this
// is the judge of backends too.
func VerifyHistory(ctx context.Context, b Backend, p Partition) error {
	head, err := b.Head(ctx, p)
	if errors.Is(err, ErrNotFound) || err == nil && head.State == Fenced {
		return nil // nothing, or nothing that is shown
	}
	if err != nil {
		return err
	}
	var chain [32]byte
	revision := uint64(0)
	for {
		rows, err := b.History(ctx, p, revision, verifyPage)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for len(rows) > 0 {
			revision++
			n := 0
			var commitments [][32]byte
			for n < len(rows) && rows[n].Revision == revision {
				if err := VerifyHistoryRow(rows[n], n); err != nil {
					return fmt.Errorf("history of %v at revision %d: %w", p, revision, err)
				}
				commitments = append(commitments, rows[n].Commitment)
				n++
			}
			if n == 0 {
				return fmt.Errorf("history of %v has %d where revision %d should be", p, rows[0].Revision, revision)
			}
			chain = ChainNext(chain, revision, commitments)
			rows = rows[n:]
		}
	}
	if chain != head.Chain || revision != head.Revision {
		return fmt.Errorf("history of %v does not lead to its head: revision %d of %d", p, revision, head.Revision)
	}
	return nil
}

// VerifyHistoryRow finds what is wrong with the nth row of a commit, taken by itself.
func VerifyHistoryRow(row HistoryRow, n int) error {
	switch {
	case row.N != n:
		return fmt.Errorf("row %d is numbered %d", n, row.N)
	case row.Salt == nil && (row.Key != Key{} || row.Body != nil || row.Deleted):
		return fmt.Errorf("row %d is half forgotten", n)
	case row.Salt != nil && row.Deleted != (row.Body == nil):
		return fmt.Errorf("row %d: deleted is %v, body is %q", n, row.Deleted, row.Body)
	case row.Salt != nil && row.Commitment != Commitment(row.Salt, row.Key, row.Body, row.Deleted):
		return fmt.Errorf("row %d does not open its commitment", n)
	case row.Salt != nil && len(row.Salt) < 16:
		return fmt.Errorf("row %d: a salt of %d bytes can be guessed", n, len(row.Salt))
	}
	return nil
}

// VerifyAudit walks the audit rows along their chain, to where they are said to end. Nothing may be
// committed meanwhile.
func VerifyAudit(ctx context.Context, b Backend) error {
	var chain [32]byte
	for seq := uint64(0); ; {
		rows, err := b.Audit(ctx, seq, 10*verifyPage)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			end, said, err := b.AuditEnd(ctx)
			if err == nil && (end != seq || said != chain) {
				err = fmt.Errorf("the audit rows end with number %d, and should with %d", seq, end)
			}
			return err
		}
		for _, row := range rows {
			seq++
			chain = AuditNext(chain, row)
			if row.Seq != seq || row.Chain != chain {
				return fmt.Errorf("audit row %d, numbered %d, is not what its chain says", seq, row.Seq)
			}
		}
	}
}
