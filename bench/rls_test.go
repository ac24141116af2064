package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/pgtest"
	"github.com/copse-authz/copse/rls"
)

// The database's refusal is held against the same table without it: what a query costs that says
// WHERE tenant_id = $1 on a table without policies, over a pool that is bound to nobody.

const (
	rlsTenants = 1000
	rlsRows    = 100_000
	rlsQuery   = "SELECT id, body FROM %s WHERE tenant_id = $1 AND folder = $2"
)

// rlsPair is one database with the same rows in a plain table and in one with policies.
type rlsPair struct {
	plain *pgxpool.Pool
	bound *rls.DB
}

func newRLSPair(b *testing.B) rlsPair {
	b.Helper()
	pg := pgtest.Start(b)
	name := pg.Database(b)
	migration, err := rls.InitSQL("app", "public")
	if err != nil {
		b.Fatal(err)
	}
	table, err := rls.AddTableSQL(rls.Table{Schema: "public", Name: "walled", Role: "app"})
	if err != nil {
		b.Fatal(err)
	}
	rows := ""
	for _, t := range []string{"plain", "walled"} {
		rows += fmt.Sprintf(`CREATE TABLE %[1]s (tenant_id text COLLATE "C" NOT NULL, folder int NOT NULL, id int NOT NULL, body text NOT NULL, PRIMARY KEY (tenant_id, folder, id));
			INSERT INTO %[1]s SELECT 'tenant-' || i %% %[2]d, i / %[2]d / 5, i, 'a row of some length, as such rows are: ' || i FROM generate_series(0, %[3]d - 1) AS i;
			ANALYZE %[1]s;`, t, rlsTenants, rlsRows)
	}
	pg.Exec(b, name, migration+rows+table+"GRANT SELECT ON plain TO app;")
	url := pg.URL("app", name) + fmt.Sprintf(" pool_max_conns=%d", 8)
	pool := func() *pgxpool.Pool {
		p, err := pgxpool.New(b.Context(), url)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Close)
		return p
	}
	bound, err := rls.Wrap(pool())
	if err != nil {
		b.Fatal(err)
	}
	return rlsPair{plain: pool(), bound: bound}
}

type rlsRow struct {
	ID   int
	Body string
}

type rlsQueryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readFolder(ctx context.Context, q rlsQueryer, table string, tenant copse.TenantID, folder int) ([]rlsRow, error) {
	rows, err := q.Query(ctx, fmt.Sprintf(rlsQuery, table), string(tenant), folder)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[rlsRow])
}

// The i-th question of either side.
func (p rlsPair) askPlain(ctx context.Context, i int) ([]rlsRow, error) {
	tenant, folder := rlsQuestion(i)
	return readFolder(ctx, p.plain, "plain", tenant, folder)
}

func (p rlsPair) askBound(ctx context.Context, i int) ([]rlsRow, error) {
	tenant, folder := rlsQuestion(i)
	return readFolder(rls.ForTenant(ctx, tenant), p.bound, "walled", tenant, folder)
}

func rlsQuestion(i int) (copse.TenantID, int) {
	return copse.TenantID(fmt.Sprintf("tenant-%d", i*7919%rlsTenants)), i % (rlsRows / rlsTenants / 5)
}

func (p rlsPair) sameAnswers(b *testing.B) {
	b.Helper()
	for i := range 200 {
		want, err := p.askPlain(b.Context(), i)
		if err != nil || len(want) != 5 {
			b.Fatalf("plain: %d rows, %v", len(want), err)
		}
		got, err := p.askBound(b.Context(), i)
		if err != nil || !slices.Equal(got, want) {
			b.Fatalf("bound: %v, %v; want %v", got, err, want)
		}
	}
}

// BenchmarkRLSLatency is one client, both sides in turns; medians.
func BenchmarkRLSLatency(b *testing.B) {
	p := newRLSPair(b)
	p.sameAnswers(b)
	var plain, bound []time.Duration
	b.ResetTimer()
	for i := range b.N {
		for _, side := range []struct {
			ask  func(context.Context, int) ([]rlsRow, error)
			took *[]time.Duration
		}{{p.askPlain, &plain}, {p.askBound, &bound}} {
			start := time.Now()
			if _, err := side.ask(b.Context(), i); err != nil {
				b.Fatal(err)
			}
			*side.took = append(*side.took, time.Since(start))
		}
	}
	slices.Sort(plain)
	slices.Sort(bound)
	median := len(plain) / 2
	b.ReportMetric(float64(plain[median].Microseconds()), "plain-µs")
	b.ReportMetric(float64(bound[median].Microseconds()), "bound-µs")
	b.ReportMetric(float64(bound[median])/float64(plain[median]), "bound/plain")
}

// BenchmarkRLSThroughput is 8 clients, the two sides taking turns in lots.
func BenchmarkRLSThroughput(b *testing.B) {
	const clients, lot = 8, 50
	p := newRLSPair(b)
	p.sameAnswers(b)
	var took [2]time.Duration
	b.ResetTimer()
	for range b.N {
		for side, ask := range []func(context.Context, int) ([]rlsRow, error){p.askPlain, p.askBound} {
			start := time.Now()
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					for i := range lot {
						if _, err := ask(b.Context(), c*lot+i); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			took[side] += time.Since(start)
		}
	}
	questions := float64(b.N * clients * lot)
	b.ReportMetric(questions/took[0].Seconds(), "plain/s")
	b.ReportMetric(questions/took[1].Seconds(), "bound/s")
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "of-plain-rate")
	b.ReportMetric(float64(runtime.GOMAXPROCS(0)), "cores")
}
