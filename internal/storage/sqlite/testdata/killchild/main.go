// Command killchild writes to a data directory and says so, until it is killed.
//
// It is the victim of the kill test: a program of its own, because the test may be built with the race
// detector, which would make it too slow to be caught in mid-write. Its standard input is one line of
// JSON, [config]; its standard output has one line before each operation ("try") and one after it was
// acknowledged ("ack"). A line is one write, so the parent sees all of it or nothing.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

type config struct {
	Dir  string
	Life string // distinguishes the names of this life from those of others
	Seed uint64
}

// Items is the number of items of each partition; every commit writes them all, with one body.
const items = 6

func main() {
	var cfg config
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err == nil {
		err = json.Unmarshal([]byte(line), &cfg)
	}
	check(err)
	// A parent that is gone kills nobody.
	time.AfterFunc(time.Minute, func() { os.Exit(3) })
	say("hello race=%v", raceBuilt())
	b, err := sqlite.Open(cfg.Dir)
	check(err)
	for n := range 4 {
		w := &worker{b: b, rand: rand.New(rand.NewPCG(cfg.Seed, uint64(n))), name: fmt.Sprintf("%s-%d", cfg.Life, n)}
		go w.run()
	}
	select {}
}

func raceBuilt() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "killchild:", err)
		os.Exit(2)
	}
}

func say(format string, args ...any) {
	_, err := os.Stdout.WriteString(fmt.Sprintf(format, args...) + "\n")
	check(err)
}

// worker has partitions to itself, one after the other.
type worker struct {
	b    *sqlite.Backend
	rand *rand.Rand
	name string
}

func (w *worker) run() {
	ctx := context.Background()
	for n := 0; ; n++ {
		id := fmt.Sprintf("%s-%d", w.name, n)
		p, i := storage.PolicyStore(copse.PolicyStoreID(id)), copse.NewIncarnation()
		for revision := range 1 + w.rand.IntN(4) {
			token := fmt.Sprintf("%d-%s", w.rand.Uint64(), strings.Repeat("x", w.rand.IntN(2000)))
			c := storage.Commit{Partition: p, Incarnation: i, Create: revision == 0, Actor: "killchild", Operation: "Write"}
			for k := range items {
				c.Writes = append(c.Writes, storage.Write{
					Key: storage.Key{Kind: "policy", ID: fmt.Sprint(k)}, Body: []byte(token), Expect: storage.Version(uint64(revision)),
				})
			}
			say("try commit %s %s %d %s", id, i, revision+1, token)
			_, err := w.b.Commit(ctx, c)
			check(err)
			say("ack commit %s %s %d %s", id, i, revision+1, token)
		}
		if w.rand.IntN(2) == 0 {
			continue
		}
		say("try fence %s %s", id, i)
		check(w.b.Fence(ctx, p, i, "killchild"))
		say("ack fence %s %s", id, i)
		if w.rand.IntN(3) == 0 {
			continue
		}
		say("try erase %s %s", id, i)
		for done := false; !done; {
			var err error
			done, err = w.b.Erase(ctx, p, i, 5+w.rand.IntN(40))
			check(err)
		}
		say("ack erase %s %s", id, i)
	}
}
