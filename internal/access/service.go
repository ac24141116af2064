package access

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Config is what a Service is made of.
type Config struct {
	Backend   storage.Backend
	MasterKey MasterKey // 32 bytes
	RootID    string    // the root key, never stored; wins over a stored one
	Root      Secret
	Region    string // when set, the only region SigV4 may be signed for
	Metrics   prometheus.Registerer
}

const (
	// maxCachedKeys bounds memory, not the number of keys: others are read again.
	maxCachedKeys = 20_000
	// An id nobody has costs one read in this time, however often it is presented. Creating a key
	// ends it early.
	unknownTTL = 5 * time.Second
)

// Service keeps access keys and verifies what is presented.
// Its methods may be called at the same time.
type Service struct {
	backend storage.Backend
	region  string
	sealers
	pages      cipher.AEAD
	root       *record // nil when there is no root key
	nobody     *record // stands in for a key that does not exist
	keys       *storage.Cache[string, *record]
	stop       func()
	uses       uses
	failedUses failedUses
	failures   *prometheus.CounterVec

	unverified intake
}

// New makes a Service. It follows the backend until Close. A master key that does not open what is
// stored is refused here, not at the first call.
// It follows before it looks at the storage, so no change falls between the two.
func New(cfg Config) (*Service, error) {
	s := &Service{backend: cfg.Backend, region: cfg.Region, uses: uses{byID: map[string]*use{}}}
	var err error
	if s.sealers, err = newSealers(cfg.MasterKey); err != nil {
		return nil, err
	}
	if s.pages, err = sealerFor(cfg.MasterKey, "paging token"); err != nil {
		return nil, err
	}
	if s.root, err = rootRecord(cfg); err != nil {
		return nil, err
	}
	// Random, so that nothing a caller sends can match it.
	s.nobody = newRecord(Key{}, rand.Text())
	s.nobody.known = false
	if s.failures, err = newFailures(cfg.Metrics); err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	// Without a TTL: a change of a key's row is what ends its record. Expiry is looked at with each use.
	s.keys = storage.NewCache(storage.CacheConfig[string, *record]{
		Load: s.load, MaxWeight: maxCachedKeys, NegativeTTL: unknownTTL,
	})
	if cfg.Metrics != nil {
		for _, c := range s.keys.Collectors("access_key", "access keys", false) {
			if err := cfg.Metrics.Register(c); err != nil {
				return nil, fmt.Errorf("access: %w", err)
			}
		}
	}
	unfollow := cfg.Backend.Follow(s.follow)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.CheckMasterKey(ctx); err != nil {
		unfollow()
		return nil, err
	}
	stopped := make(chan struct{})
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keepUses(stopped) })
	s.stop = sync.OnceFunc(func() {
		close(stopped)
		keeper.Wait()
		unfollow()
	})
	return s, nil
}

// Close writes down when keys were last used, and stops following the backend.
// It comes before the backend is closed. Calling it again is harmless.
func (s *Service) Close() error {
	s.stop()
	return nil
}

// sealerFor is the AEAD of one purpose; Invalid for a master key of the wrong length.
func sealerFor(master MasterKey, purpose string) (cipher.AEAD, error) {
	key, err := master.derive(purpose)
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "access: %w", err)
	}
	return newSealer(key)
}

// minRootSecret keeps a guessable root secret out; generated secrets have 40 characters.
const minRootSecret = 16

// rootRecord is nil, without an error, when no root key is configured. One half of it alone is a mistake.
func rootRecord(cfg Config) (*record, error) {
	if cfg.RootID == "" && cfg.Root == "" {
		return nil, nil
	}
	if err := CheckRootKey(cfg.RootID, cfg.Root); err != nil {
		return nil, err
	}
	system := System()
	return newRecord(Key{ID: cfg.RootID, Description: "root", Scope: system.Scope, Verbs: system.Verbs}, string(cfg.Root)), nil
}

// CheckRootKey is Invalid for a root key that New would not take.
func CheckRootKey(id string, secret Secret) error {
	if !validKeyID(id) {
		return copse.Errorf(copse.Invalid, "root access key id: use 16 to 128 letters and digits")
	}
	if len(secret) < minRootSecret || len(secret) > maxSecret {
		return copse.Errorf(copse.Invalid, "root secret: it has %d characters; use %d to %d", len(secret), minRootSecret, maxSecret)
	}
	// Also no spaces, which a header might lose at its ends.
	for i := range len(secret) {
		if c := secret[i]; c <= ' ' || c > '~' {
			return copse.Errorf(copse.Invalid, "root secret: character %d is not printable ASCII; a header could not carry it", i+1)
		}
	}
	return nil
}

// CheckMasterKey opens one stored access key and one of the server's own secrets, if there are any: a
// master key that opens neither verifies nobody. Invalid when it is another one.
// InvalidState while a rotation of the master key is not finished.
func (s *Service) CheckMasterKey(ctx context.Context) error {
	_, err := s.backend.Get(ctx, storage.Directory(), rotationKey)
	if err == nil {
		return copse.Errorf(copse.InvalidState,
			"a rotation of the master key is not finished: run `copse key rotate-master` again, with the files it was begun with")
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return fmt.Errorf("access: %w", err)
	}
	// One row of each kind tells, since rotation leaves none of another generation behind.
	for _, kind := range []storage.Kind{keyKind, secretKind} {
		items, err := s.backend.Scan(ctx, storage.Directory(), kind, "", 1)
		if err != nil {
			return fmt.Errorf("access: %w", err)
		}
		for _, item := range items {
			if kind == keyKind {
				_, err = s.open(item)
			} else {
				_, err = s.openSecret(item)
			}
			if err != nil {
				return copse.Errorf(copse.Invalid,
					"the master key is not the one that the stored %ss were sealed with: bring back the master key file that belongs to this data directory; %s (%w)", kind, lostMasterKey, err)
			}
		}
	}
	return nil
}

// follow runs before the commit that changed a key returns, which makes a revocation effective
// before it is acknowledged.
func (s *Service) follow(change storage.Change) {
	if change.Partition != storage.Directory() {
		return
	}
	// Anything may have changed.
	if change.Keys == nil {
		s.keys.InvalidateAll()
		return
	}
	for _, key := range change.Keys {
		if key.Kind == keyKind {
			s.keys.Invalidate(key.ID)
		}
	}
}
