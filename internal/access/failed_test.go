package access

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// failedRecords are all records of failed uses that were ever written, and when.
func failedRecords(t *testing.T, b storage.Backend) (records []*FailedUses, at []time.Time) {
	t.Helper()
	audit, err := b.Audit(t.Context(), 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range audit {
		if row.Operation != OperationFailedUses {
			continue
		}
		rows, err := b.History(t.Context(), row.Partition, row.Revision-1, 1)
		if err != nil || len(rows) != 1 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		uses, err := ParseFailedUses(row.Partition, rows[0].Key, rows[0].Body)
		if err != nil || uses == nil {
			t.Fatalf("%v, %v", uses, err)
		}
		records, at = append(records, uses), append(at, row.At)
	}
	return records, at
}

// failedCounts adds records up, as "key reason".
func failedCounts(records ...*FailedUses) map[string]uint64 {
	out := map[string]uint64{}
	for _, r := range records {
		for _, u := range r.Uses {
			out[u.Key+" "+string(u.Reason)] += u.Count
		}
	}
	return out
}

func TestFailedUsesSayWhichKeyAndWhy(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, over(backend))
		k, secret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		short, shortSecret := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read, ExpiresAt: time.Now().Add(time.Second)})
		time.Sleep(2 * time.Second)
		unknown := newKeyID()
		for credential, times := range map[Secret]int{
			FormatBearer(k.ID, "wrong"): 3, FormatBearer(unknown, secret): 2, FormatBearer(rootID, "wrong-root-secret"): 1,
			FormatBearer(short.ID, shortSecret): 1, "": 5, "garbage": 1,
			FormatBearer(string(secret), Secret(k.ID)): 1, // pasted the wrong way round
			FormatBearer(k.ID, secret):                 4, // good
		} {
			for range times {
				_, _ = s.Bearer(t.Context(), string(credential))
			}
		}
		unsigned, err := http.NewRequest("POST", "http://copse.example/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		unsigned.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+k.ID+"/19991231/us-east-1/verifiedpermissions/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64))
		unsigned.Header.Set("X-Amz-Date", "19991231T000000Z")
		_, _, _ = s.PrecheckSigV4(t.Context(), unsigned)
		caller, err := s.Bearer(t.Context(), string(FormatBearer(k.ID, secret)))
		if err != nil {
			t.Fatal(err)
		}
		s.Refused(caller, requireAdmin(caller))
		s.Refused(caller, NotCovered(copse.ResourceTenant, "another"))
		s.Refused(caller, copse.NotFoundError(copse.ResourceTenant, "nobody's"))
		s.Refused(caller, nil)
		s.Refused(Caller{}, requireAdmin(Caller{}))
		begin := time.Now()
		time.Sleep(useTick)
		synctest.Wait()
		records, at := failedRecords(t, backend)
		if len(records) != 1 || records[0].From.After(begin) || !records[0].To.After(begin) || !at[0].Equal(records[0].To) {
			t.Fatalf("%+v at %v", records, at)
		}
		want := map[string]uint64{
			k.ID + " InvalidCredential": 3, unknown + " UnrecognizedClient": 2, rootID + " InvalidCredential": 1,
			short.ID + " ExpiredToken": 1, "malformed InvalidCredential": 2, k.ID + " RequestExpired": 1, k.ID + " NotAllowed": 2,
		}
		if got := failedCounts(records...); !maps.Equal(got, want) {
			t.Errorf("counted %v\nwant %v", got, want)
		}
		history, err := backend.History(t.Context(), storage.Directory(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range history {
			if text := string(row.Body); strings.Contains(text, string(secret)) || strings.Contains(text, "wrong") {
				t.Errorf("what was shown is in storage: %s", text)
			}
		}
		time.Sleep(10 * useTick)
		if records, _ := failedRecords(t, backend); len(records) != 1 {
			t.Errorf("%d records, though nothing failed since", len(records))
		}
	})
}

// Strangers who try many ids make neither memory nor the disk busy, hide no key that there is, and every use is
// counted once.
func TestFailedUsesAreBounded(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, over(backend))
		victim, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		const minutes, callers, each = 3, 4, 500
		asked := uint64(0)
		for range minutes {
			for range 10 {
				var work sync.WaitGroup
				for c := range callers {
					work.Go(func() {
						for n := range each {
							id := newKeyID()
							if n%5 == 0 {
								id = fmt.Sprintf("noid%020d", n)
							}
							if _, err := s.Bearer(t.Context(), string(FormatBearer(id, Secret(fmt.Sprint("guess", c, n))))); err == nil {
								t.Error("a stranger came in")
							}
						}
					})
				}
				work.Wait()
				asked += callers * each
				s.failedUses.mu.Lock()
				ids, counts := len(s.failedUses.ids), len(s.failedUses.counts)
				s.failedUses.mu.Unlock()
				if ids > maxFailedKnown+maxFailedUnknown || counts > ids+2 {
					t.Fatalf("%d ids and %d counts in memory", ids, counts)
				}
				if _, err := s.Bearer(t.Context(), string(FormatBearer(victim.ID, "wrong"))); err == nil {
					t.Error("a wrong secret came in")
				}
				asked++
				time.Sleep(useTick / 10)
			}
		}
		if err := s.Close(); err != nil { // with what is left
			t.Fatal(err)
		}
		records, at := failedRecords(t, backend)
		if len(records) > minutes+1 || len(records) < minutes {
			t.Errorf("%d commits in %d minutes", len(records), minutes)
		}
		for n := 1; n < len(at)-1; n++ { // the last is that of the end
			if at[n].Sub(at[n-1]) < useTick {
				t.Errorf("two commits within %s", at[n].Sub(at[n-1]))
			}
		}
		counted := uint64(0)
		for _, n := range failedCounts(records...) {
			counted += n
		}
		if counted != asked {
			t.Errorf("%d counted, %d asked", counted, asked)
		}
		for _, r := range records {
			if len(r.Uses) > maxFailedUnknown+3 {
				t.Errorf("a record of %d uses", len(r.Uses))
			}
		}
		if got := failedCounts(records...); got[victim.ID+" InvalidCredential"] != minutes*10 || got["others UnrecognizedClient"] == 0 || got["malformed InvalidCredential"] != minutes*10*callers*each/5 {
			t.Errorf("of a key that there is %d, of others %d, malformed %d", got[victim.ID+" InvalidCredential"], got["others UnrecognizedClient"], got["malformed InvalidCredential"])
		}
	})
}

// fullBackend takes no commits while full.
type fullBackend struct {
	storage.Backend
	mu   sync.Mutex
	full bool
}

func (b *fullBackend) set(full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.full = full
}

func (b *fullBackend) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	b.mu.Lock()
	full := b.full
	b.mu.Unlock()
	if full {
		return 0, storage.ErrFull
	}
	return b.Backend.Commit(ctx, c)
}

// While the disk is full failed uses are counted on, and written when there is room.
func TestFailedUsesOutliveAFullDisk(t *testing.T) {
	memory := memory.New()
	defer func() { _ = memory.Close() }()
	synctest.Test(t, func(t *testing.T) {
		backend := &fullBackend{Backend: memory}
		s := newService(t, over(backend))
		k, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
		backend.set(true)
		begin := time.Now()
		for range 3 {
			for range 2 {
				_, _ = s.Bearer(t.Context(), string(FormatBearer(k.ID, "wrong")))
			}
			time.Sleep(useTick)
			synctest.Wait()
		}
		if records, _ := failedRecords(t, memory); len(records) != 0 {
			t.Fatalf("%d records on a full disk", len(records))
		}
		backend.set(false)
		time.Sleep(useTick)
		synctest.Wait()
		records, _ := failedRecords(t, memory)
		if len(records) != 1 || !records[0].From.Equal(begin) || failedCounts(records...)[k.ID+" InvalidCredential"] != 6 {
			t.Errorf("%+v", records)
		}
	})
}

// What strangers can have written in a minute, with every reason there is.
func TestRecordsOfFailedUsesAreSmall(t *testing.T) {
	var f failedUses
	ids := make([]string, 1000)
	for n := range ids {
		ids[n] = newKeyID()
	}
	for _, reason := range append(Reasons(), NotAllowed) {
		for _, id := range ids {
			f.note(id, false, reason, 1<<40, time.Now())
		}
		f.note(failedMalformed, false, reason, 1<<40, time.Now())
	}
	uses, _ := f.take(time.Now())
	body, err := json.Marshal(uses)
	if err != nil || len(body) > 16_000 || len(uses.Uses) < 100 {
		t.Errorf("%d bytes of %d uses, %v", len(body), len(uses.Uses), err)
	}
}

func TestOnlyIDsThatCopseDrawsAreKept(t *testing.T) {
	for range 100 {
		if id := newKeyID(); !drawnKeyID(id) {
			t.Errorf("%s is not known for one of ours", id)
		}
		if secret := string(newSecret()); drawnKeyID(secret) || drawnKeyID(secret[:20]) && !strings.HasPrefix(secret, idPrefix) {
			t.Errorf("%s is taken for an id", secret)
		}
	}
	if slices.ContainsFunc([]string{"", idPrefix, newKeyID() + "A", strings.ToLower(newKeyID()), rootID, newKeyID()[1:]}, drawnKeyID) {
		t.Error("what is no id is taken for one")
	}
}
