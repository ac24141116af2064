package sqlite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

const killDirectories = 4

// TestKill lets children write until they are killed, several directories at once, and opens what they
// left: nothing they reported may be lost, nothing may be half there, nothing erased may be back.
func TestKill(t *testing.T) {
	kills := 200
	if os.Getenv("COPSE_LONG") == "1" {
		kills = 1000
	}
	child := filepath.Join(t.TempDir(), "killchild")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", child, "./testdata/killchild").CombinedOutput(); err != nil {
		t.Fatalf("build killchild: %v\n%s", err, out)
	}
	var total killCounts
	var wg sync.WaitGroup
	for d := range killDirectories {
		wg.Go(func() {
			g := &graveyard{t: t, child: child, rand: rand.New(rand.NewPCG(7, uint64(d))), counts: &total}
			for life := 0; total.kills.Load() < int64(kills) && !t.Failed(); life++ {
				if life%6 == 0 { // or the files would grow, and with them the time to verify them
					g.dir, g.partitions = t.TempDir(), make(map[string]*killed)
				}
				g.live(fmt.Sprintf("%d-%d", d, life))
			}
		})
	}
	wg.Wait()
	t.Logf("%d kills, %d of them in mid-write, %d acknowledged, %d unacknowledged found done, %d erased",
		total.kills.Load(), total.midWrite.Load(), total.acknowledged.Load(), total.unacknowledged.Load(), total.erased.Load())
	if n := int64(kills); total.kills.Load() < n || total.midWrite.Load() < n*3/4 || total.acknowledged.Load() < n*5 ||
		total.erased.Load() < n/10 || total.unacknowledged.Load() < n/10 {
		t.Errorf("too little happened to prove anything")
	}
}

type killCounts struct{ kills, midWrite, acknowledged, unacknowledged, erased atomic.Int64 }

// graveyard is one directory and what is known of it.
type graveyard struct {
	t          *testing.T
	child      string
	rand       *rand.Rand
	counts     *killCounts
	dir        string
	partitions map[string]*killed // by policy store id
}

// killed is what a child reported about one partition.
type killed struct {
	incarnation string
	revision    uint64 // acknowledged
	token       string
	fenced      bool
	erased      bool
	trying      []string // the operation that was not acknowledged
}

// live runs one child to its death and looks at what it left.
func (g *graveyard) live(life string) {
	t := g.t
	cmd := exec.Command(g.child)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Error(err)
		return
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	cfg, _ := json.Marshal(map[string]any{"Dir": g.dir, "Life": life, "Seed": g.rand.Uint64()})
	_, writeErr := stdin.Write(append(cfg, '\n'))
	killErr := g.watch(stdout, func() error { return cmd.Process.Kill() })
	waitErr := cmd.Wait()
	if cmd.ProcessState.ExitCode() != -1 || writeErr != nil || killErr != nil {
		t.Errorf("the child was not killed: %v, %v, %v, %s", waitErr, writeErr, killErr, stderr.String())
		return
	}
	g.counts.kills.Add(1)
	if err := g.examine(); err != nil {
		t.Errorf("life %s in %s: %v", life, g.dir, err)
	}
}

// watch reads what the child says, kills it some time after its first acknowledgement, and reads on: what
// is in the pipe by then was said in time.
func (g *graveyard) watch(stdout io.Reader, kill func() error) error {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	var timer *time.Timer
	killed := make(chan error, 1)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if words[0] == "hello" {
			if words[1] != "race=false" {
				return errors.New("the child is built with the race detector")
			}
			continue
		}
		if err := g.note(words); err != nil {
			return errors.Join(err, kill())
		}
		if timer == nil && words[0] == "ack" {
			timer = time.AfterFunc(time.Duration(g.rand.IntN(100_000))*time.Microsecond, func() { killed <- kill() })
		}
	}
	if timer == nil {
		return errors.Join(errors.New("the child ended before it wrote anything"), kill())
	}
	return <-killed
}

func (g *graveyard) note(words []string) error {
	if len(words) < 4 {
		return fmt.Errorf("the child said %q", words)
	}
	id := words[2]
	p := g.partitions[id]
	if p == nil {
		p = &killed{incarnation: words[3]}
		g.partitions[id] = p
	}
	if words[0] == "try" {
		p.trying = words[1:]
		return nil
	}
	p.trying = nil
	g.counts.acknowledged.Add(1)
	switch words[1] {
	case "commit":
		p.revision++
		p.token = words[5]
		if words[4] != fmt.Sprint(p.revision) {
			return fmt.Errorf("%q after revision %d", words[:5], p.revision-1)
		}
	case "fence":
		p.fenced = true
	case "erase":
		p.erased = true
		g.counts.erased.Add(1)
	}
	return nil
}

// examine opens the directory as a restarted server would.
func (g *graveyard) examine() (err error) {
	ctx := context.Background()
	b, err := Open(g.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	// The writer's connection is idle: nobody else has this backend.
	if v, err := b.writer.conn.value("PRAGMA integrity_check"); err != nil {
		return fmt.Errorf("integrity_check: %w", err)
	} else if fmt.Sprint(v) != "ok" {
		return fmt.Errorf("integrity_check says %v", v)
	}
	midWrite := false
	for id, p := range g.partitions {
		midWrite = midWrite || p.trying != nil
		if err := g.examinePartition(ctx, b, id, p); err != nil {
			return fmt.Errorf("partition %s, acknowledged at %d, fenced %v, erased %v, trying %.40q: %w",
				id, p.revision, p.fenced, p.erased, p.trying, err)
		}
	}
	if midWrite {
		g.counts.midWrite.Add(1)
	}
	for after := ""; ; {
		heads, err := b.Heads(ctx, after, 1000)
		if err != nil {
			return err
		}
		if len(heads) == 0 {
			break
		}
		for _, head := range heads {
			id, _ := head.Partition.PolicyStoreID()
			if p := g.partitions[string(id)]; p == nil || p.incarnation != head.Incarnation.String() {
				return fmt.Errorf("%v was never made, or not with this incarnation", head.Partition)
			}
			after = head.Partition.String()
		}
	}
	if err := g.checkFeed(ctx, b); err != nil {
		return err
	}
	return storagetest.CheckChains(ctx, b)
}

// examinePartition compares a partition with what was acknowledged, give or take the one operation that
// was under way; what is found then counts as acknowledged, since it must not go away again.
func (g *graveyard) examinePartition(ctx context.Context, b *Backend, id string, p *killed) error {
	name := storage.PolicyStore(copse.PolicyStoreID(id))
	trying := ""
	if p.trying != nil {
		trying = p.trying[0]
	}
	head, err := b.Head(ctx, name)
	absent := errors.Is(err, storage.ErrNotFound)
	switch {
	case err != nil && !absent:
		return err
	case absent && (p.revision == 0 || p.erased):
	case absent && trying == "erase":
		p.erased = true
		g.counts.unacknowledged.Add(1)
	case absent:
		return errors.New("it is lost")
	case p.erased:
		return errors.New("it is back")
	case head.Incarnation.String() != p.incarnation:
		return errors.New("it is another")
	case head.State == storage.Fenced && !p.fenced:
		if trying != "fence" {
			return errors.New("it is fenced")
		}
		p.fenced = true
		g.counts.unacknowledged.Add(1)
	case head.State == storage.Active && p.fenced:
		return errors.New("its fence is gone")
	}
	if trying == "commit" && !absent && head.Revision == p.revision+1 {
		p.revision++
		p.token = p.trying[4]
		g.counts.unacknowledged.Add(1)
	}
	p.trying = nil
	if absent || p.fenced {
		if _, err := b.Load(ctx, name); !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("its items are still there: %w", err)
		}
		return nil
	}
	snapshot, err := b.Load(ctx, name)
	if err != nil {
		return err
	}
	if snapshot.Head.Revision != p.revision || len(snapshot.Items) != 6 {
		return fmt.Errorf("it is at revision %d with %d items", snapshot.Head.Revision, len(snapshot.Items))
	}
	for _, item := range snapshot.Items {
		if item.Version != p.revision || string(item.Body) != p.token {
			return fmt.Errorf("item %s is half of another commit: version %d", item.ID, item.Version)
		}
	}
	return nil
}

// checkFeed counts: every commit and fence of a partition that is still whole has its row.
func (g *graveyard) checkFeed(ctx context.Context, b *Backend) error {
	rows, err := b.Feed(ctx, 0, 1<<30)
	if err != nil {
		return err
	}
	found := make(map[string]uint64)
	for n, row := range rows {
		if n > 0 && row.Seq <= rows[n-1].Seq {
			return fmt.Errorf("feed has %d after %d", row.Seq, rows[n-1].Seq)
		}
		id, _ := row.Partition.PolicyStoreID()
		found[string(id)]++
	}
	for id, p := range g.partitions {
		if want := p.revision; !p.fenced && found[id] != want || p.erased && found[id] != 0 {
			return fmt.Errorf("feed has %d rows of %s, revision %d, erased %v", found[id], id, p.revision, p.erased)
		}
	}
	return nil
}
