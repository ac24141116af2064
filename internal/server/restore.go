package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// operationRestore is what the audit log calls a restoration.
const operationRestore = "RestoreBackup"

var restorationKey = storage.Key{Kind: "restoration"}

// restorationBody is the directory's memory of the last restoration.
type restorationBody struct {
	V        int       `json:"v"`
	MadeAt   time.Time `json:"madeAt"`   // of the backup
	AuditRow uint64    `json:"auditRow"` // the last in it
}

// Restore makes a data directory from a backup, as [sqlite.Restore] does, and has the audit log say so: what
// was stored since the backup is undone by this, revocations and suspensions among it, and without a row of its own
// only somebody who kept a later head of the audit log could tell.
//
// When the row can't be written the database is there without it, and the error says so.
func Restore(ctx context.Context, file, dir string) (sqlite.Manifest, error) {
	m, err := sqlite.Restore(file, dir)
	if err != nil {
		return m, err
	}
	if err := noteRestored(ctx, dir, m); err != nil {
		return m, fmt.Errorf("%s has the data, but not their row in the audit log: %w; empty it and restore again", dir, err)
	}
	return m, nil
}

func noteRestored(ctx context.Context, dir string, m sqlite.Manifest) (err error) {
	b, err := sqlite.OpenExisting(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	head, err := b.Head(ctx, storage.Directory())
	if errors.Is(err, storage.ErrNotFound) {
		return nil // nothing was ever stored
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(restorationBody{V: 1, MadeAt: m.MadeAt, AuditRow: uint64(m.AuditSeq)})
	if err != nil {
		return err
	}
	_, err = b.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: head.Incarnation,
		Writes: []storage.Write{{Key: restorationKey, Body: body, Expect: storage.Any()}},
		Actor:  storage.ActorSystem, Operation: operationRestore,
	})
	return err
}
