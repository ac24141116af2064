package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	modernc "modernc.org/sqlite"
)

// conn is one connection. The driver is used without database/sql, whose pool would only be in the
// way: who owns which connection is decided here, once, and a statement stays prepared on it. No
// statement gets a context that can end, since an interrupt may hit the next one.
type conn struct {
	c     driver.Conn
	stmts []*stmt
}

// stmt is a prepared statement of one conn, for one user at a time.
type stmt struct {
	s    driver.Stmt
	args []driver.NamedValue
	row  row
}

// openConn opens path with SQLite's URI parameters (nil: read and write, made if absent) and sets pragmas in
// order. After an error nothing stays open.
func openConn(path string, parameters url.Values, pragmas ...string) (*conn, error) {
	// A file URI, so that nothing in the path is taken for a parameter.
	uri := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: parameters.Encode()}
	c, err := (&modernc.Driver{}).Open(uri.String())
	if err != nil {
		return nil, err
	}
	result := &conn{c: c}
	for _, pragma := range pragmas {
		if err := result.exec("PRAGMA " + pragma); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return result, nil
}

// close finalizes what was prepared: SQLite would otherwise keep the connection, and with it the file
// and the log, open behind our back.
func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

// prepare keeps a statement for the life of the connection.
func (c *conn) prepare(text string) (*stmt, error) {
	s, err := c.c.Prepare(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	result := &stmt{s: s}
	c.stmts = append(c.stmts, result)
	return result, nil
}

// once prepares a statement for the length of use.
func (c *conn) once(text string, use func(s *stmt) error) error {
	s, err := c.c.Prepare(text)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return errors.Join(use(&stmt{s: s}), s.Close())
}

// exec runs text, which may be several statements.
func (c *conn) exec(text string) error {
	return c.once(text, func(s *stmt) error {
		_, err := s.exec()
		return err
	})
}

// value reads the single value that text yields.
// Nil when it yields no row.
func (c *conn) value(text string) (v driver.Value, err error) {
	err = c.once(text, func(s *stmt) error {
		_, err := s.one(func(r *row) error {
			v = r.values[0]
			return nil
		})
		return err
	})
	return v, err
}

// bind fills a slice that stays with the statement, so that executing it again allocates no arguments.
func (s *stmt) bind(args []driver.Value) []driver.NamedValue {
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s.args
}

// exec returns the number of rows changed. Arguments are int64, []byte (nil is NULL) or string.
func (s *stmt) exec(args ...driver.Value) (int64, error) {
	result, err := s.s.(driver.StmtExecContext).ExecContext(context.Background(), s.bind(args))
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query calls each for every row. The row is valid during the call, what was read from it stays.
// An error of each ends the query and is returned. Damage that each left in the row's err counts, even if it
// returned nil. Rows are stepped through as each asks for them, so each must not execute s itself.
func (s *stmt) query(each func(r *row) error, args ...driver.Value) (err error) {
	rows, err := s.s.(driver.StmtQueryContext).QueryContext(context.Background(), s.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if s.row.values == nil {
		s.row.values = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row.values); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		s.row.next, s.row.err = 0, nil
		if err := each(&s.row); err != nil {
			return err
		}
		if s.row.err != nil {
			return s.row.err
		}
	}
}

// one is query for at most one row; ok says whether there was any.
func (s *stmt) one(each func(r *row) error, args ...driver.Value) (ok bool, err error) {
	err = s.query(func(r *row) error {
		ok = true
		return each(r)
	}, args...)
	return ok, err
}

// row hands out the columns of a row in order. A column of the wrong type or size is remembered as
// damage in err, so that callers read all of them and check once.
type row struct {
	values []driver.Value
	next   int
	err    error
}

// column panics past the last column: a statement and its reader that differ are a defect, not damage.
func (r *row) column() driver.Value {
	r.next++
	return r.values[r.next-1]
}

func (r *row) damaged(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: column %d is not %s", ErrCorrupt, r.next, what)
	}
}

// number is 0 for a column of another type, which is remembered as damage.
func (r *row) number() uint64 {
	n, ok := r.column().(int64)
	if !ok {
		r.damaged("a number")
	}
	return uint64(n)
}

// bytes is nil for NULL and for the empty BLOB alike: the driver does not tell them apart.
func (r *row) bytes() []byte {
	v := r.column()
	b, ok := v.([]byte)
	if !ok && v != nil {
		r.damaged("a BLOB")
	}
	return b
}

func (r *row) text() string { return string(r.bytes()) }

// fixed fills to, and takes a column of any other length for damage.
func (r *row) fixed(to []byte) {
	b := r.bytes()
	if len(b) != len(to) {
		r.damaged(fmt.Sprintf("%d bytes long", len(to)))
	}
	copy(to, b)
}
