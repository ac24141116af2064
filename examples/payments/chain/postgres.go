package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// postgres is a database server of the example's own: on a Unix socket, in a directory that goes with it.
type postgres struct {
	ps  *processes
	dir string
}

// The two roles of the database: the owner of the tables, and what the services connect as.
const (
	ownerRole = "postgres"
	appRole   = "app"
)

const socketPort = "5432" // part of the socket's name; nothing listens on a port

// startPostgres makes a cluster and starts a server on it. With an error, what is returned may be nil; if it
// is not, there is a directory to remove.
func (ps *processes) startPostgres() (*postgres, error) {
	// A socket's name may have about a hundred bytes: hence not below the other directory.
	dir, err := os.MkdirTemp("/tmp", "copse-example-pg-")
	if err != nil {
		return nil, err
	}
	pg := &postgres{ps: ps, dir: dir}
	as, err := serverUser()
	if err != nil {
		return pg, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return pg, err
		}
	}
	data := filepath.Join(dir, "data")
	// trust: whoever reaches the socket is any role, owner too. Its directory is readable by the server's
	// user alone. What is not on disk is not missed: all of it is thrown away.
	initdb, err := serverCommand(as, "initdb", "-D", data, "-U", ownerRole, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if err != nil {
		return pg, err
	}
	if _, err := ps.run(initdb); err != nil {
		return pg, err
	}
	// The socket is all there is to reach it by; fsync=off because no crash is to be survived.
	server, err := serverCommand(as, "postgres", "-D", data, "-k", dir, "-p", socketPort, "-c", "listen_addresses=", "-c", "fsync=off")
	if err != nil {
		return pg, err
	}
	_, err = ps.start("PostgreSQL", server, func(ctx context.Context) error {
		// The socket first, which costs nothing; that there is one does not mean that the server takes
		// queries yet.
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, ".s.PGSQL."+socketPort))
		if err != nil {
			return err
		}
		_ = conn.Close()
		return pg.exec("SELECT 1")
	})
	return pg, err
}

// remove deletes the data. The server must have ended.
func (pg *postgres) remove() { _ = os.RemoveAll(pg.dir) }

// url is a connection string for a role, over the socket.
func (pg *postgres) url(role string) string {
	return fmt.Sprintf("host=%s port=%s user=%s dbname=postgres", pg.dir, socketPort, role)
}

// exec runs SQL as the owner, in one transaction: all of it or, with an error, nothing.
func (pg *postgres) exec(sql string) error {
	psql, err := find("psql")
	if err != nil {
		return err
	}
	// Without the user's own psqlrc, as one transaction, and ended by the first error.
	cmd := exec.CommandContext(pg.ps.ctx, psql, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", pg.url(ownerRole), "-f", "-")
	cmd.Stdin = strings.NewReader(sql)
	_, err = pg.ps.run(cmd)
	return err
}

// serverUser is who PostgreSQL runs as: it refuses to be root, so there it is the user that its package
// made. Nil: whoever runs the example.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	// Debian's package makes a user of this name.
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL refuses to run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// serverCommand is a command of PostgreSQL's server, to be run as that user; nil is whoever runs the
// example. It runs in /, because the other user may not be able to read the directory that the example was
// started in.
func serverCommand(as *syscall.Credential, name string, args ...string) (*exec.Cmd, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	// Not bound to a context: it is stopped in its turn, behind what uses it.
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "LC_ALL=C")
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	return cmd, nil
}

// count runs a query for one number as the owner, whom no policy holds. sql has no semicolon at its end.
func (pg *postgres) count(sql string) (int, error) { return pg.countAs(ownerRole, sql) }

// countAs runs it as a role, over a connection of its own, on which nothing has set a tenant before.
func (pg *postgres) countAs(role, sql string) (int, error) {
	psql, err := find("psql")
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(pg.ps.ctx, psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", pg.url(role), "-f", "-")
	cmd.Stdin = strings.NewReader(sql + ";\n")
	out, err := pg.ps.run(cmd)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}
