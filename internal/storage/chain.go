package storage

import (
	"crypto/sha256"
	"encoding/binary"
)

// Commitment binds a history row without showing it: SHA-256 over salt, key and body, each
// length-prefixed so that no two rows have the same bytes. With row and salt gone, nothing can be
// guessed back from it.
func Commitment(salt []byte, k Key, body []byte, deleted bool) [32]byte {
	h := sha256.New()
	writePart := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	writePart(salt)
	writePart([]byte(k.Kind))
	writePart([]byte(k.ID))
	if deleted {
		writePart([]byte{1})
	} else {
		writePart([]byte{0})
	}
	writePart(body)
	return [32]byte(h.Sum(nil))
}

// ChainNext is a partition's history chain after a commit: the former chain, the revision, and the
// commitments in order.
func ChainNext(chain [32]byte, revision uint64, commitments [][32]byte) [32]byte {
	h := sha256.New()
	h.Write(chain[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], revision)
	h.Write(n[:])
	for _, c := range commitments {
		h.Write(c[:])
	}
	return [32]byte(h.Sum(nil))
}

// AuditNext is the audit chain after a row; row.Chain itself is not part of it.
func AuditNext(chain [32]byte, row AuditRow) [32]byte {
	h := sha256.New()
	h.Write(chain[:])
	var n [8]byte
	number := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	text := func(s string) {
		number(uint64(len(s)))
		h.Write([]byte(s))
	}
	number(row.Seq)
	number(uint64(row.At.UnixNano()))
	text(row.Actor)
	text(row.Operation)
	text(row.Partition.String())
	h.Write(row.Incarnation[:])
	number(row.Revision)
	number(uint64(row.Writes))
	h.Write(row.Head[:])
	return [32]byte(h.Sum(nil))
}
