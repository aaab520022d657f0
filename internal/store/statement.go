package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"

	"modernc.org/sqlite"
)

// SQLite takes longer to read a short statement than to carry it out, and a run says
// the same hundred over and over. Each connection therefore keeps those it has read.
const (
	keptStatements = 100
	keptLength     = 3 << 10 // bytes; longer ones insert many rows at once, rarely as many as before
)

// openPool opens a pool of connections to a SQLite database.
func openPool(name string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(name)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(keeper{c}), nil
}

// keeper makes connections that keep their statements.
type keeper struct{ driver.Connector }

// Connect implements driver.Connector.
func (k keeper) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := k.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if n, ok := c.(native); ok {
		return &keepingConn{native: n, kept: map[string]*statement{}}, nil
	}
	return c, nil
}

// native is what the driver's own connection can do.
type native interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// keepingConn is a connection that keeps its statements. Like every driver.Conn it is
// used by one goroutine at a time.
type keepingConn struct {
	native
	kept map[string]*statement
	uses int64
}

// statement is one that was read before. SQLite reads it again by itself when the
// schema has changed since.
type statement struct {
	driver.Stmt
	query string
	used  int64 // when it was used last, in uses of the connection
	busy  bool  // its rows are still being read
}

// statement returns the kept statement for a text, reading it if it is new; nil when
// this text is not kept, or is in use.
func (c *keepingConn) statement(ctx context.Context, query string) (*statement, error) {
	c.uses++
	if s := c.kept[query]; s != nil {
		if s.busy {
			return nil, nil
		}
		s.used = c.uses
		return s, nil
	}
	if len(query) > keptLength || !repeats(query) {
		return nil, nil
	}
	if len(c.kept) >= keptStatements && !c.forgetOldest() {
		return nil, nil
	}
	p, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s := &statement{Stmt: p, query: query, used: c.uses}
	c.kept[query] = s
	return s, nil
}

// repeats tells statements on rows from those on the database, some of which take
// effect while they are read.
func repeats(query string) bool {
	for strings.HasPrefix(query, "--") { // River names its statements in a comment
		_, query, _ = strings.Cut(query, "\n")
	}
	word, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	word, _, _ = strings.Cut(word, "\n")
	switch strings.ToUpper(word) {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return true
	}
	return false
}

func (c *keepingConn) forgetOldest() bool {
	var oldest *statement
	for _, s := range c.kept {
		if !s.busy && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	c.forget(oldest)
	return true
}

// forget ends a statement. What ending it has to say was said by its last use.
func (c *keepingConn) forget(s *statement) {
	delete(c.kept, s.query)
	_ = s.Close()
}

// ExecContext implements driver.ExecerContext.
func (c *keepingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.native.ExecContext(ctx, query, args)
	}
	res, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	if err != nil {
		c.forget(s)
	}
	return res, err
}

// QueryContext implements driver.QueryerContext.
func (c *keepingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.native.QueryContext(ctx, query, args)
	}
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		c.forget(s)
		return nil, err
	}
	s.busy = true
	return &keptRows{rows, c, s}, nil
}

// Close implements driver.Conn.
func (c *keepingConn) Close() error {
	for _, s := range c.kept {
		c.forget(s)
	}
	return c.native.Close()
}

// keptRows gives its statement free when it is closed.
type keptRows struct {
	driver.Rows
	conn *keepingConn
	of   *statement
}

// Close implements driver.Rows.
func (r *keptRows) Close() error {
	err := r.Rows.Close()
	r.of.busy = false
	if err != nil {
		r.conn.forget(r.of)
	}
	return err
}
