package sqlite

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// BenchmarkCreate makes durable partitions of six items from 32 goroutines, as onboarding does.
func BenchmarkCreate(b *testing.B) {
	backend := open(b, b.TempDir())
	body := bytes.Repeat([]byte("x"), 300)
	var failed atomic.Value
	b.SetParallelism(16) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c := storage.Commit{
				Partition: storage.PolicyStore(copse.PolicyStoreID(copse.NewID())), Incarnation: copse.NewIncarnation(),
				Create: true, Actor: "key", Operation: "CreateTenant",
			}
			for n := range 6 {
				c.Writes = append(c.Writes, storage.Write{Key: storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, Body: body})
			}
			if _, err := backend.Commit(b.Context(), c); err != nil {
				failed.Store(err)
			}
		}
	})
	if err := failed.Load(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

func BenchmarkLoad(b *testing.B) {
	backend := open(b, b.TempDir())
	var partitions []storage.Partition
	for range 1000 {
		p := storage.PolicyStore(copse.PolicyStoreID(copse.NewID()))
		partitions = append(partitions, p)
		c := storage.Commit{Partition: p, Incarnation: copse.NewIncarnation(), Create: true}
		for n := range 6 {
			c.Writes = append(c.Writes, storage.Write{Key: storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, Body: bytes.Repeat([]byte("x"), 300)})
		}
		if _, err := backend.Commit(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		n++
		if _, err := backend.Load(b.Context(), partitions[n*7919%len(partitions)]); err != nil {
			b.Fatal(err)
		}
	}
}
