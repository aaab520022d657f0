package webapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// bulkMessages says which bulk messages a table has. Not every table has them,
// and no server before version 9.
type bulkMessages struct{ create, update bool }

// writeCalls is how many write calls of one WriteRecords are in flight.
const writeCalls = 8

// WriteRecords creates and updates records, a hundred a call. Rows of one call to
// a bulk message stand or fall together; when one is refused, that call's rows are
// sent again one by one in a single $batch. Updates of a certain version go that way
// at once: bulk messages compare no versions (Dataverse developer guide, "Optimistic
// concurrency" and "Use bulk operation messages").
func (c *Client) WriteRecords(ctx context.Context, name string, rows []lockstep.RecordWrite) ([]*lockstep.Error, error) {
	results := make([]*lockstep.Error, len(rows))
	if len(rows) == 0 {
		return results, nil
	}
	var need []string
	for i := range rows {
		for _, f := range rows[i].Fields {
			if !slices.Contains(need, f.Column) {
				need = append(need, f.Column)
			}
		}
	}
	t, err := c.lookUpTable(ctx, name, need...)
	if err != nil {
		return results, err
	}
	w := &writer{c: c, t: t, rows: rows, results: results, bodies: make([][]byte, len(rows)), versions: make([]int64, len(rows))}
	if w.bulk, err = c.bulkOf(ctx, name); err != nil {
		return results, err
	}
	if w.api, err = c.api(ctx); err != nil {
		return results, err
	}
	var creates, updates []int
	seen := make(map[lockstep.ID]struct{}, len(rows))
	repeated := false
	for i := range rows {
		if rows[i].ID.IsZero() {
			results[i] = &lockstep.Error{Code: lockstep.CodeInvalid, Op: w.op(i), Msg: "a record is written without an id"}
			continue
		}
		if w.bodies[i], err = w.fields(ctx, i); err != nil {
			var e *lockstep.Error
			if !errors.As(err, &e) || e.Scope != lockstep.ScopeRecord {
				return results, err
			}
			results[i] = e
			continue
		}
		if _, ok := seen[rows[i].ID]; ok {
			repeated = true // the later ones rest on ours and compare no version
		} else if !rows[i].Create && rows[i].Version != 0 {
			w.versions[i] = rows[i].Version
		}
		seen[rows[i].ID] = struct{}{}
		if rows[i].Create {
			creates = append(creates, i)
		} else if len(rows[i].Fields) > 0 {
			updates = append(updates, i)
		}
	}
	// Two writes to one record keep their order: one call behind the other, and
	// row by row, because a bulk message may not name a record twice.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writeCalls)
	if repeated {
		g.SetLimit(1)
		w.bulk = bulkMessages{}
		all := make([]int, 0, len(creates)+len(updates))
		for i := range rows {
			if w.bodies[i] != nil && results[i] == nil && (rows[i].Create || len(rows[i].Fields) > 0) {
				all = append(all, i)
			}
		}
		creates, updates = all, nil
	}
	for _, set := range [][]int{creates, updates} {
		for at := 0; at < len(set); at += writeRows {
			chunk := set[at:min(at+writeRows, len(set))]
			g.Go(func() error { return w.write(gctx, chunk, 0) })
		}
	}
	err = g.Wait()
	if err != nil && errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = w.first
	}
	c.forget(name, err)
	// Calls beside or before the failed one may have been carried out.
	return results, partly(err, len(creates)+len(updates) > writeRows || len(creates) > 0 && len(updates) > 0)
}

type writer struct {
	c      *Client
	t      *table
	api    string
	bulk   bulkMessages
	rows   []lockstep.RecordWrite
	bodies [][]byte // the fields of each row: `"a":1,"b":null`
	// versions that the rows' updates rest on; 0 = any.
	versions []int64
	results  []*lockstep.Error

	mu    sync.Mutex
	first error
}

func (w *writer) op(i int) string {
	verb := "update"
	if w.rows[i].Create {
		verb = "create"
	}
	return "dynamics: " + verb + " " + w.t.name + " " + w.rows[i].ID.String()
}

func (w *writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = err
	}
	return err
}

// write writes rows of one kind in one call, or in more when the service cannot
// carry that many.
func (w *writer) write(ctx context.Context, chunk []int, attempt int) error {
	create := w.rows[chunk[0]].Create
	useBulk := len(chunk) > 1 && (create && w.bulk.create || !create && w.bulk.update)
	if slices.ContainsFunc(chunk, func(i int) bool { return w.condition(i) != anyVersion }) {
		useBulk = false
	}
	if !useBulk {
		return w.rowByRow(ctx, chunk)
	}
	err := w.together(ctx, chunk, create)
	switch {
	case err == nil:
		return nil
	case isBusy(err) && attempt < 5:
		// Fewer rows hold fewer locks for less time.
		if err := w.c.wait(ctx, "write "+w.t.name, time.Duration(attempt+1)*time.Second); err != nil {
			return w.fail(err)
		}
		half := (len(chunk) + 1) / 2
		if err := w.write(ctx, chunk[:half], attempt+1); err != nil {
			return err
		}
		if half == len(chunk) {
			return nil
		}
		return w.write(ctx, chunk[half:], attempt+1)
	case codeOf(err) == errTooLarge:
		half := (len(chunk) + 1) / 2
		if err := w.write(ctx, chunk[:half], attempt); err != nil {
			return err
		}
		return w.write(ctx, chunk[half:], attempt)
	case rowMayBeAtFault(err):
		return w.rowByRow(ctx, chunk)
	}
	return w.fail(err)
}

const anyVersion = "*"

// condition is the entity tag that a row must have to be updated.
func (w *writer) condition(i int) string {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.versions[i] == 0 || w.c.unversioned[w.t.name] {
		return anyVersion
	}
	return `W/"` + strconv.FormatInt(w.versions[i], 10) + `"`
}

// together sends rows with a bulk message: all or none is written.
func (w *writer) together(ctx context.Context, chunk []int, create bool) error {
	message := "UpdateMultiple"
	if create {
		message = "CreateMultiple"
	}
	body := []byte(`{"Targets":[`)
	for n, i := range chunk {
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"@odata.type":"Microsoft.Dynamics.CRM.`+w.t.name+`","`+w.t.id+`":"`...)
		body = append(w.rows[i].ID.Append(body), '"')
		if len(w.bodies[i]) > 0 {
			body = append(append(body, ','), w.bodies[i]...)
		}
		body = append(body, '}')
	}
	_, _, err := w.c.fetch(ctx, request{
		op: message + " " + w.t.name, method: post, target: w.api + w.t.set + "/Microsoft.Dynamics.CRM." + message,
		route: "/" + w.t.set + "/" + message, body: append(body, "]}"...), repeatable: true, rows: len(chunk),
	})
	return err
}

// rowByRow sends rows in one $batch; each has its own result.
func (w *writer) rowByRow(ctx context.Context, chunk []int) error {
	parts := make([]part, len(chunk))
	for n, i := range chunk {
		id := w.rows[i].ID.String()
		if w.rows[i].Create {
			body := []byte(`{"` + w.t.id + `":"` + id + `"`)
			if len(w.bodies[i]) > 0 {
				body = append(append(body, ','), w.bodies[i]...)
			}
			parts[n] = part{method: post, target: w.api + w.t.set, body: append(body, '}')}
			continue
		}
		body := append(append([]byte{'{'}, w.bodies[i]...), '}')
		parts[n] = part{method: patch, target: w.api + w.t.set + "(" + id + ")", ifMatch: w.condition(i), body: body}
	}
	results := make([]*lockstep.Error, len(chunk))
	err := w.c.each(ctx, "write "+w.t.name, parts, results)
	if err != nil {
		return w.fail(err)
	}
	var collided, unversioned []int
	for n, i := range chunk {
		e := results[n]
		if e != nil {
			e.Op = w.op(i)
			if codeOf(e) == errUnversioned && w.versions[i] != 0 {
				unversioned = append(unversioned, i)
			}
			if code := codeOf(e); w.rows[i].Create && (code == errDuplicateID || code == errKeyTaken) {
				collided = append(collided, i) // of a row that is there, either may be told
			}
		}
		w.results[i] = e
	}
	if len(unversioned) > 0 {
		w.c.mu.Lock()
		w.c.unversioned[w.t.name] = true
		w.c.mu.Unlock()
		for _, i := range unversioned {
			w.versions[i] = 0
		}
		if err := w.rowByRow(ctx, unversioned); err != nil {
			return err
		}
	}
	return w.settle(ctx, collided)
}

// settle finds out whether a create was refused because the record is there
// already, which is success, or because another record has the same key.
func (w *writer) settle(ctx context.Context, collided []int) error {
	if len(collided) == 0 {
		return nil
	}
	ids := make([]lockstep.ID, len(collided))
	for n, i := range collided {
		ids[n] = w.rows[i].ID
	}
	there := make(map[lockstep.ID]bool, len(ids))
	err := w.c.Records(ctx, lockstep.RecordQuery{Table: w.t.name}, ids, func(records []lockstep.Record) error {
		for _, r := range records {
			there[r.ID] = true
		}
		return nil
	})
	if err != nil {
		return w.fail(err)
	}
	for _, i := range collided {
		if there[w.rows[i].ID] {
			w.results[i] = nil
		}
	}
	return nil
}

// fields writes the columns of a row as JSON members.
func (w *writer) fields(ctx context.Context, i int) ([]byte, error) {
	body := make([]byte, 0, 32*len(w.rows[i].Fields))
	bad := func(column, msg string) error {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Op: w.op(i), Field: column, Msg: msg, Hint: "read the tables again and correct the mapping"}
	}
	for _, f := range w.rows[i].Fields {
		if f.Value.IsAbsent() {
			continue
		}
		col, ok := w.t.columns[f.Column]
		if !ok {
			return nil, bad(f.Column, fmt.Sprintf("the table %s has no column %.60q", w.t.name, f.Column))
		}
		if len(body) > 0 {
			body = append(body, ',')
		}
		if col.kind == lookupColumn {
			var err error
			if body, err = w.bind(ctx, body, i, col, f.Value); err != nil {
				return nil, err
			}
			continue
		}
		body = append(append(append(body, '"'), f.Column...), '"', ':')
		var fits bool
		if body, fits = appendValue(body, col.kind, f.Value); !fits {
			return nil, bad(f.Column, fmt.Sprintf("a value of the kind %s does not fit the column %s", f.Value.Kind(), f.Column))
		}
	}
	return body, nil
}

// appendValue writes a value as the column takes it.
func appendValue(dst []byte, kind columnKind, v lockstep.Value) ([]byte, bool) {
	if v.IsNull() {
		return append(dst, "null"...), true
	}
	s := v.Text()
	switch kind {
	case textColumn:
		return lockstep.AppendJSONString(dst, s), true
	case numberColumn:
		return append(dst, s...), v.Kind() == lockstep.Number
	case boolColumn:
		return append(dst, s...), v.Kind() == lockstep.Bool
	case timeColumn:
		return lockstep.AppendJSONString(dst, s), v.Kind() == lockstep.DateTime || v.Kind() == lockstep.Date
	case choicesColumn:
		return lockstep.AppendJSONString(dst, s), v.Kind() == lockstep.Choices || v.Kind() == lockstep.Number
	case idColumn:
		_, err := lockstep.ParseID(s)
		return lockstep.AppendJSONString(dst, s), err == nil
	}
	return dst, false
}

// bind sets a lookup: "<id>" where it leads to one table, "<table> <id>" anywhere.
func (w *writer) bind(ctx context.Context, body []byte, i int, col column, v lockstep.Value) ([]byte, error) {
	relations, err := w.c.relationsOf(ctx, w.t)
	if err != nil {
		return nil, err
	}
	leads := relations[col.name]
	bad := func(msg string) error {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Op: w.op(i), Field: col.name, Msg: msg}
	}
	if len(leads) == 0 {
		return nil, bad("the lookup " + col.name + " cannot be set")
	}
	if v.IsNull() {
		return append(body, `"`+leads[0].navigation+`@odata.bind":null`...), nil
	}
	target, text, named := strings.Cut(v.Text(), " ")
	if !named {
		target, text = "", v.Text()
	}
	id, err := lockstep.ParseID(text)
	if err != nil {
		return nil, bad("the lookup " + col.name + " takes the id of a record")
	}
	if target == "" && len(leads) > 1 {
		return nil, bad("the lookup " + col.name + " leads to several tables: the value must name the table too")
	}
	for _, r := range leads {
		if target != "" && r.table != target {
			continue
		}
		other, err := w.c.lookUpTable(ctx, r.table)
		if err != nil {
			return nil, err
		}
		return append(body, `"`+r.navigation+`@odata.bind":"/`+other.set+`(`+id.String()+`)"`...), nil
	}
	return nil, bad("the lookup " + col.name + " does not lead to that table")
}

// bulkOf finds out once which bulk messages a table has.
func (c *Client) bulkOf(ctx context.Context, name string) (bulkMessages, error) {
	c.mu.Lock()
	known, ok := c.bulk[name]
	c.mu.Unlock()
	if ok || c.before9() {
		return known, nil
	}
	text, err := c.get(ctx, "look for bulk messages of "+name, "/sdkmessagefilters", "sdkmessagefilters?$select=sdkmessagefilterid&$expand=sdkmessageid($select=name)"+
		"&$filter=(sdkmessageid/name%20eq%20%27CreateMultiple%27%20or%20sdkmessageid/name%20eq%20%27UpdateMultiple%27)%20and%20primaryobjecttypecode%20eq%20%27"+name+"%27")
	switch code := lockstep.CodeOf(err); {
	case err == nil:
		cols := pagescan.NewColumns("sdkmessageid")
		inner := pagescan.NewColumns("name")
		cells, message := make([]pagescan.Cell, 1), make([]pagescan.Cell, 1)
		for p := pagescan.New(text, "value", cols); ; {
			ok, err := p.Next(cells)
			if err != nil {
				return known, garbled("look for bulk messages of " + name)
			}
			if !ok {
				break
			}
			if cells[0].Members(inner, message) == nil {
				known.create = known.create || message[0].Text() == "CreateMultiple"
				known.update = known.update || message[0].Text() == "UpdateMultiple"
			}
		}
	case code == lockstep.CodeNotFound || code == lockstep.CodeInvalid || code == lockstep.CodeForbidden || code == lockstep.CodeUnsupported:
		// Without the answer the slower way is taken, which always works.
	default:
		return known, err
	}
	c.mu.Lock()
	c.bulk[name] = known
	c.mu.Unlock()
	return known, nil
}

// rowMayBeAtFault reports refusals that may be about one row only, so that the
// rows are worth sending one by one.
func rowMayBeAtFault(err error) bool {
	e := lockstep.AsError(err)
	if wide(e) || isTransient(e) {
		return false
	}
	switch e.Code {
	case lockstep.CodeInvalid, lockstep.CodeNotFound, lockstep.CodeConflict, lockstep.CodeUnsupported:
		return true
	case lockstep.CodeForbidden:
		return e.Scope == lockstep.ScopeRecord
	}
	return false
}

// wide reports refusals that concern the whole call, whichever row met them.
func wide(e *lockstep.Error) bool {
	switch codeOf(e) {
	case errListLocked, errListDynamic, errListDynamicLock, errPrivilege:
		return true
	}
	return e.Scope == lockstep.ScopeConnection
}

// isBusy reports that the service could not carry the call but may carry a
// smaller one.
func isBusy(err error) bool {
	switch codeOf(err) {
	case errDeadlock, errSQLTimeout, errPluginTimeout:
		return true
	}
	return false
}

func isTransient(e *lockstep.Error) bool {
	return isBusy(e) || e.Code == lockstep.CodeThrottled || e.Code == lockstep.CodeUnavailable
}

// wait sleeps with jitter.
func (c *Client) wait(ctx context.Context, op string, d time.Duration) error {
	d += time.Duration(c.jitter(int64(d/2 + 1)))
	if err := c.sleep(ctx, d); err != nil {
		return cancelled(op, err)
	}
	return nil
}
