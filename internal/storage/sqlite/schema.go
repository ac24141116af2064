package sqlite

// The file's identity. A change of the tables raises schemaVersion and brings a step of [format].
const (
	applicationID = 0x636f7073 // "cops"
	schemaVersion = 1
)

// schema makes the tables of a new file. Numbers of Go's uint64 are stored as int64 with the same bits. Those
// that are compared (revisions, seqs) stay in the positive half; digests and sums are only ever equal or not.
const schema = `
CREATE TABLE head (
  partition   BLOB NOT NULL PRIMARY KEY,
  incarnation BLOB NOT NULL,
  state       INTEGER NOT NULL,
  revision    INTEGER NOT NULL,
  chain       BLOB NOT NULL,
  created     INTEGER NOT NULL, -- nanoseconds since 1970, as all times
  items       INTEGER NOT NULL, -- how many there are
  digest      INTEGER NOT NULL, -- their sums, added up
  sum         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE item (
  partition BLOB NOT NULL,
  kind      BLOB NOT NULL,
  id        BLOB NOT NULL,
  version   INTEGER NOT NULL,
  sum       INTEGER NOT NULL,
  body      BLOB NOT NULL,
  PRIMARY KEY (partition, kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
  partition  BLOB NOT NULL,
  revision   INTEGER NOT NULL,
  n          INTEGER NOT NULL,
  commitment BLOB NOT NULL,
  at         INTEGER NOT NULL,
  deleted    INTEGER NOT NULL,
  salt       BLOB, -- this and what follows is NULL once forgotten
  kind       BLOB,
  id         BLOB,
  body       BLOB, -- NULL for a deletion
  PRIMARY KEY (partition, revision, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_key ON history (partition, kind, id) WHERE kind IS NOT NULL; -- for Forget

CREATE TABLE feed (
  seq         INTEGER PRIMARY KEY,
  partition   BLOB NOT NULL,
  incarnation BLOB NOT NULL,
  revision    INTEGER NOT NULL,
  fenced      INTEGER NOT NULL,
  at          INTEGER NOT NULL,
  sum         INTEGER NOT NULL
) STRICT;
CREATE INDEX feed_partition ON feed (partition);

CREATE TABLE audit (
  seq         INTEGER PRIMARY KEY,
  at          INTEGER NOT NULL,
  actor       BLOB NOT NULL,
  operation   BLOB NOT NULL,
  partition   BLOB NOT NULL,
  incarnation BLOB NOT NULL,
  revision    INTEGER NOT NULL,
  writes      INTEGER NOT NULL,
  head        BLOB NOT NULL,
  chain       BLOB NOT NULL
) STRICT;

CREATE TABLE counter (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  feed_seq    INTEGER NOT NULL, -- the last one given out, whether or not its row is still there
  audit_seq   INTEGER NOT NULL,
  audit_chain BLOB NOT NULL,
  opened      INTEGER NOT NULL  -- written at each start, to learn that writing works
) STRICT;
INSERT INTO counter VALUES (1, 0, 0, zeroblob(32), 0);
`

const (
	// What rows.go reads by position. A change here is one there.
	headColumns  = `partition, incarnation, state, revision, chain, created, items, digest, sum`
	selectHead   = `SELECT ` + headColumns + ` FROM head WHERE partition = ?`
	selectHeads  = `SELECT ` + headColumns + ` FROM head WHERE partition > ? AND partition < x'7030' ORDER BY partition LIMIT ?`
	itemColumns  = `kind, id, version, sum, body`
	selectItem   = `SELECT ` + itemColumns + ` FROM item WHERE partition = ? AND kind = ? AND id = ?`
	selectKind   = `SELECT ` + itemColumns + ` FROM item WHERE partition = ? AND kind = ? AND id > ? ORDER BY id LIMIT ?`
	selectItems  = `SELECT ` + itemColumns + ` FROM item WHERE partition = ? ORDER BY kind, id`
	historyCols  = `revision, n, commitment, at, deleted, salt, kind, id, body`
	selectPast   = `SELECT ` + historyCols + ` FROM history WHERE partition = ? AND revision > ? ORDER BY revision, n LIMIT ?`
	selectCommit = `SELECT ` + historyCols + ` FROM history WHERE partition = ? AND revision = ? ORDER BY n`
	selectFormer = `SELECT ` + historyCols + ` FROM history WHERE partition = ? AND kind = ? AND id = ? AND revision < ? ORDER BY revision DESC LIMIT 1`
	selectAudit  = `SELECT seq, at, actor, operation, partition, incarnation, revision, writes, head, chain FROM audit WHERE seq > ? ORDER BY seq LIMIT ?`
	selectNewest = `SELECT at FROM audit ORDER BY seq DESC LIMIT 1`
	selectChain  = `SELECT chain FROM audit WHERE seq = ?`
	selectFeed   = `SELECT seq, partition, incarnation, revision, fenced, at, sum FROM feed WHERE seq > ? ORDER BY seq LIMIT ?`

	// For the writer. The upsert of a head names what may move: incarnation and creation time never do.
	selectVersion = `SELECT version, sum FROM item WHERE partition = ? AND kind = ? AND id = ?`
	upsertHead    = `INSERT INTO head (` + headColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
	  ON CONFLICT DO UPDATE SET state = excluded.state, revision = excluded.revision, chain = excluded.chain,
	    items = excluded.items, digest = excluded.digest, sum = excluded.sum`
	upsertItem = `INSERT INTO item (partition, kind, id, version, sum, body) VALUES (?, ?, ?, ?, ?, ?)
	  ON CONFLICT DO UPDATE SET version = excluded.version, sum = excluded.sum, body = excluded.body`
	deleteItem    = `DELETE FROM item WHERE partition = ? AND kind = ? AND id = ?`
	insertHistory = `INSERT INTO history (partition, ` + historyCols + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	insertFeed    = `INSERT INTO feed (seq, partition, incarnation, revision, fenced, at, sum) VALUES (?, ?, ?, ?, ?, ?, ?)`
	insertAudit   = `INSERT INTO audit (seq, at, actor, operation, partition, incarnation, revision, writes, head, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	selectCounter = `SELECT feed_seq, audit_seq, audit_chain FROM counter WHERE id = 1`
	updateCounter = `UPDATE counter SET feed_seq = ?, audit_seq = ?, audit_chain = ? WHERE id = 1`
	updateOpened  = `UPDATE counter SET opened = ? WHERE id = 1`

	// Bounded deletions: SQLite's own LIMIT on DELETE is not for tables WITHOUT ROWID.
	eraseItems   = `DELETE FROM item WHERE partition = ?1 AND (kind, id) IN (SELECT kind, id FROM item WHERE partition = ?1 LIMIT ?2)`
	eraseHistory = `DELETE FROM history WHERE partition = ?1 AND (revision, n) IN (SELECT revision, n FROM history WHERE partition = ?1 LIMIT ?2)`
	eraseFeed    = `DELETE FROM feed WHERE seq IN (SELECT seq FROM feed WHERE partition = ?1 LIMIT ?2)`
	eraseHead    = `DELETE FROM head WHERE partition = ?`
	trimFeed     = `DELETE FROM feed WHERE at < ?1 AND seq IN (SELECT seq FROM feed ORDER BY seq LIMIT ?2)`

	// What stays is what the chain needs: revision, n, commitment, and the time. Rows already forgotten have no
	// kind, so they are neither found nor counted again.
	forgetRows = `UPDATE history SET salt = NULL, kind = NULL, id = NULL, body = NULL, deleted = 0
	  WHERE partition = ?1 AND (revision, n) IN (SELECT revision, n FROM history WHERE partition = ?1 AND kind = ?2 AND id = ?3 AND revision <= ?4 LIMIT ?5)`
)
