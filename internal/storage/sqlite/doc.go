// Package sqlite keeps partitions in one SQLite file, DIR/copse.db.
//
// The problem: a million policy stores of a few kilobytes each on one machine, every acknowledged
// write safe against a crash, a policy store read whole in microseconds, erased without a trace, and
// nobody needed to run a database. One file per policy store would take four times the disk and give
// up the transaction that moves items, history, audit and feed together; so it is one file, in which
// every table that holds a policy store's data is clustered on its partition:
//
//	head     partition -> incarnation, state, revision, chain, created, items, digest, sum
//	item     partition, kind, id -> version, body, sum
//	history  partition, revision, n -> commitment, at, deleted, salt, kind, id, body    + index on kind, id
//	feed     seq -> partition, incarnation, revision, fenced, at, sum      + index on partition
//	audit    seq -> at, actor, operation, partition, incarnation, revision, writes, head, chain
//	counter  (one row) feed_seq, audit_seq, audit_chain, opened
//
// Names and ids are BLOBs, because SQLite then compares bytes: case, Unicode form, NUL and trailing
// spaces all count. The tables are STRICT and, but for those counted by seq, WITHOUT ROWID.
//
// # Writing
//
// One goroutine owns the only writing connection. It takes up to 64 waiting mutations, gives each a
// savepoint inside one transaction, commits once, tells the followers, and then answers all of them:
// one fsync for the whole group. A mutation that its own expectations refuse is undone alone. When
// SQLite itself fails (no space, say), the group is undone and each of its mutations is tried alone,
// so that a big one that does not fit can't take its neighbours down. Contexts bound the wait in the
// queue only: a statement is never interrupted.
//
// # Reading
//
// Four connections read beside the writer; every call reads in one transaction, so it sees one
// revision. Every row of head, item and feed carries a checksum, history rows are checked against their
// commitments and audit rows against their chain; a head sums up its items, so that Load also notices an
// item that is missing or from the past. Damage is [ErrCorrupt], never an answer.
//
// # Erasing
//
// secure_delete overwrites what is deleted, and after the last step of an erasure the write-ahead log is
// checkpointed and truncated; what is forgotten leaves the file in the next quiet moment. Then a file
// of up to 64 MB is rewritten as well, because unused parts of pages hold copies of rows that SQLite moved; a larger one
// keeps those until it is compacted. Older backups still hold what they held.
//
// # Backups
//
// [Backend.Backup] copies the database beside the writer, in one read transaction, to a file whose first
// lines describe it; [Restore] verifies such a file before it makes a data directory of it. [Compact] puts
// such a copy in the place of the database.
//
// # Formats
//
// The file says which format its tables have. [Open] brings an older one to the newest, in one transaction,
// after it has made a backup, which stays; a newer one is refused. See migrate.go.
//
// # Opening
//
// [Open] takes an exclusive lock on DIR/copse.lock, refuses network file systems (whose locks and
// shared memory SQLite can't rely on) and files of a newer copse, makes one durable write to learn that
// it can, and scans nothing: a file with a million partitions opens as fast as an empty one.
package sqlite
