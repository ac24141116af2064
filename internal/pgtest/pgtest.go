// Package pgtest starts real PostgreSQL and PgBouncer servers for tests, each in a directory of its own
// and on Unix sockets only, so that nothing outside can reach them and no port can be taken. They end
// with the test binary, also when it is killed.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Superuser is the owner of a cluster.
const Superuser = "postgres"

// socketPort is part of a socket's name; every server has a directory of its own.
const socketPort = "5432"

// startTimeout bounds what takes about a second on a quiet machine.
const startTimeout = 2 * time.Minute

// Cluster is a running PostgreSQL server.
// Its methods may be called at the same time. It trusts every role: its socket is where others can't reach it.
type Cluster struct {
	dir       string // home of the data and the socket
	server    *process
	databases atomic.Int64 // made so far
}

// Main runs the tests of a package that share a cluster, which it puts where they find it:
//
//	var pg *pgtest.Cluster
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &pg)) }
func Main(m *testing.M, shared **Cluster) int {
	c, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	defer c.stop()
	*shared = c
	return m.Run()
}

// Start starts a cluster for one test or benchmark.
// It takes a second or more: tests of one package better share one, see [Main].
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	c, err := start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.stop)
	return c
}

// start leaves nothing behind when the server does not come up.
func start() (*Cluster, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	if err := c.boot(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// boot makes the data directory and starts the server in it, and returns when it answers. The locale is C, so
// that no test depends on the machine's.
func (c *Cluster) boot() error {
	data := filepath.Join(c.dir, "data")
	initdb, err := command("initdb", "-D", data, "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if err != nil {
		return err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// Durability is nothing that a test of this server needs, and waiting for disks is most of its time.
	postgres, err := command("postgres", "-D", data, "-k", c.dir, "-p", socketPort, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=100", "-c", "shared_buffers=64MB")
	if err != nil {
		return err
	}
	c.server, err = run(postgres, syscall.SIGINT)
	if err != nil {
		return err
	}
	return c.server.wait(func() error {
		_, err := c.psql("postgres", "SELECT 1")
		return err
	})
}

// stop ends the server before its directory goes; what it had is lost.
func (c *Cluster) stop() {
	if c.server != nil {
		c.server.end()
	}
	_ = os.RemoveAll(c.dir)
}

// URL is a connection string for a role and a database, over the socket and without a password.
func (c *Cluster) URL(role, database string) string {
	return connString(c.dir, role, database)
}

// connString is in libpq's form, which psql and pgx both read.
func connString(dir, role, database string) string {
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s", dir, socketPort, quote(role), quote(database))
}

// quote is for a value of a connection string, which may be any name.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// Database makes an empty database with a name of its own, which is free for a role too: roles are the
// whole cluster's. Nothing is dropped, since the cluster goes as a whole.
func (c *Cluster) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("t%d", c.databases.Add(1))
	c.Exec(tb, "postgres", "CREATE DATABASE "+name)
	return name
}

// Exec runs SQL as the superuser, by psql and so as a migration is: it stops at the first error.
func (c *Cluster) Exec(tb testing.TB, database, sql string) string {
	tb.Helper()
	out, err := c.psql(database, sql)
	if err != nil {
		tb.Fatalf("%v\nin\n%s", err, sql)
	}
	return out
}

// ExecAs is Exec as another role, and returns what failed.
func (c *Cluster) ExecAs(role, database, sql string) (string, error) {
	return c.psqlAs(role, database, sql)
}

func (c *Cluster) psql(database, sql string) (string, error) {
	return c.psqlAs(Superuser, database, sql)
}

// psqlAs gives SQL to psql by its standard input, without a ~/.psqlrc (-X), and returns its bare output.
func (c *Cluster) psqlAs(role, database, sql string) (string, error) {
	path, err := find("psql")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", c.URL(role, database), "-f", "-")
	cmd.Stdin = strings.NewReader(sql)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("psql: %w: %s", err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// PgBouncer starts a PgBouncer in transaction mode in front of the cluster, with so few connections to
// it that clients have to share, and returns a function that makes connection strings through it.
// It ends with tb, and then the strings lead nowhere.
func (c *Cluster) PgBouncer(tb testing.TB, connections int) func(role, database string) string {
	tb.Helper()
	dir, err := makeDir()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	config, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr =
unix_socket_dir = %s
listen_port = %s
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
`, c.dir, socketPort, dir, socketPort, users, connections)
	var names strings.Builder
	// PgBouncer knows the roles of its file only: those made later can't connect through it.
	roles := c.Exec(tb, "postgres", "SELECT rolname FROM pg_roles WHERE rolcanlogin")
	for role := range strings.SplitSeq(roles, "\n") {
		fmt.Fprintf(&names, "%q \"\"\n", role)
	}
	for name, content := range map[string]string{config: text, users: names.String()} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	cmd, err := command("pgbouncer", config)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := run(cmd, syscall.SIGTERM)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.end)
	// It has no database of its own to ask; its socket is there when it listens.
	err = p.wait(func() error {
		_, err := os.Stat(filepath.Join(dir, ".s.PGSQL."+socketPort))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return func(role, database string) string { return connString(dir, role, database) }
}

// process is a server that ends with the test binary.
// done is closed when it has ended, for whatever reason; output is its standard output and error.
type process struct {
	cmd    *exec.Cmd
	signal os.Signal
	output *bytes.Buffer
	done   chan struct{}
}

// run starts a server. signal is what has it end in an orderly way; output is read only when it has ended.
func run(cmd *exec.Cmd, signal os.Signal) (*process, error) {
	p := &process{cmd: cmd, signal: signal, output: &bytes.Buffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // the output says more than the code
		close(p.done)
	}()
	return p, nil
}

// wait polls until the server is ready, has ended, or takes too long.
func (p *process) wait(ready func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.output)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.cmd.Path, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end waits until the server has gone, and kills one that does not go when it is told to.
func (p *process) end() {
	_ = p.cmd.Process.Signal(p.signal)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// makeDir makes a directory that the servers' user owns. Its name is short, because the name of a
// socket may have about a hundred bytes and the usual directories of tests are longer.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "copse-pg-")
	if err != nil {
		return "", err
	}
	uid, gid, err := serverUser()
	if err == nil && uid >= 0 {
		err = os.Chown(dir, uid, gid)
	}
	return dir, err
}

// serverUser is who the servers run as: neither runs as root, so there it is the user that the package
// of the server has made. Otherwise -1, for whoever runs the tests.
func serverUser() (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return -1, -1, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, fmt.Errorf("PostgreSQL refuses to run as root: %w", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// command is a program of the server's, run as [serverUser] says. It works in /, which every user can enter, and
// its messages are in English.
func command(name string, args ...string) (*exec.Cmd, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	uid, gid, err := serverUser()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = endWithParent()
	if uid >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd, nil
}

// find looks where Debian keeps what it does not put on the path, the newest version first.
// What is on the path is taken before that, whatever its version.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	slices.SortFunc(candidates, func(a, b string) int { return version(b) - version(a) })
	for _, path := range append(candidates, "/usr/sbin/"+name) {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no " + name + " here: `make deps` installs it")
}
