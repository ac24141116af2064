package access

import (
	"context"
	"crypto/cipher"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/internal/storage"
)

// secretKind is a row of the directory for each secret of the server's own: keys that it signs with.
const secretKind storage.Kind = "server-secret"

// ServerSecret is something that copse itself must keep secret between restarts, and share with the
// other nodes on the same storage. It is sealed under the master key, bound to its purpose and name.
type ServerSecret struct {
	Purpose, Name string // of letters, digits and -
	Value         Secret
	CreatedAt     time.Time
}

func (in *ServerSecret) key() storage.Key {
	return storage.Key{Kind: secretKind, ID: in.Purpose + "/" + in.Name}
}

// storedSecret is a secret's body in storage. The id, purpose and name, is bound to what is sealed.
type storedSecret struct {
	Sealed    []byte    `json:"sealed"`
	MasterKey string    `json:"masterKey,omitzero"` // generation
	CreatedAt time.Time `json:"createdAt"`
}

// secretSealer is apart from that of access keys: a sealed value of the one opens as nothing of the other.
func secretSealer(master MasterKey) (cipher.AEAD, error) { return sealerFor(master, "server secret") }

// PutSecret keeps a secret under a name that is free. Conflict when it is not: of two nodes that make a
// secret at the same time one is told to read what the other made.
func (s *Service) PutSecret(ctx context.Context, in ServerSecret) error {
	body, err := s.sealSecret(&in, in.key().ID)
	if err != nil {
		return storageError(err)
	}
	return s.commit(ctx, System(), "PutServerSecret", nil, storage.Write{Key: in.key(), Body: body, Expect: storage.Absent()})
}

// DeleteSecret removes a secret, from the history too: sealed or not, what was a key has no business
// there. One that is not there is removed.
func (s *Service) DeleteSecret(ctx context.Context, purpose, name string) error {
	in := ServerSecret{Purpose: purpose, Name: name}
	return s.forgetSecret(ctx, "DeleteServerSecret", in.key())
}

// forgetSecret removes the row first. If forgetting its history fails, the same call again does that.
func (s *Service) forgetSecret(ctx context.Context, operation string, key storage.Key) error {
	if err := s.commit(ctx, System(), operation, nil, storage.Write{Key: key, Expect: storage.Any()}); err != nil {
		return err
	}
	if err := s.backend.Forget(ctx, storage.Directory(), key, 0); err != nil {
		return storageError(err)
	}
	return nil
}

// Secrets reads all secrets of a purpose, in order of their names. One that the master key does not open
// is an error: the key is not this storage's.
func (s *Service) Secrets(ctx context.Context, purpose string) ([]ServerSecret, error) {
	const most = 1000
	items, err := s.backend.Scan(ctx, storage.Directory(), secretKind, purpose+"/", most)
	if err != nil {
		return nil, storageError(err)
	}
	var out []ServerSecret
	for _, item := range items {
		// Rows are in order of purpose, so the next purpose is the end of this one.
		if !strings.HasPrefix(item.ID, purpose+"/") {
			break
		}
		opened, err := s.openSecret(item)
		if err != nil {
			return nil, storageError(err)
		}
		out = append(out, opened)
	}
	return out, nil
}

// sealSecret makes the body of a secret's row.
func (s *sealers) sealSecret(in *ServerSecret, id string) ([]byte, error) {
	return json.Marshal(storedSecret{Sealed: seal(s.secrets, string(in.Value), id), MasterKey: s.generation, CreatedAt: in.CreatedAt})
}

func (s *sealers) openSecret(item storage.Item) (ServerSecret, error) {
	var b storedSecret
	if err := json.Unmarshal(item.Body, &b); err != nil {
		return ServerSecret{}, fmt.Errorf("secret %s: %w", item.ID, err)
	}
	value, err := s.secrets.Open(nil, nil, b.Sealed, []byte(item.ID))
	if err != nil {
		return ServerSecret{}, fmt.Errorf("secret %s can't be opened%s: %w", item.ID, s.otherThan(b.MasterKey), err)
	}
	purpose, name, _ := strings.Cut(item.ID, "/")
	return ServerSecret{Purpose: purpose, Name: name, Value: Secret(value), CreatedAt: b.CreatedAt}, nil
}
