package webapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// idsPerURL and idsPerPart are how many ids a condition takes in a plain request
// and inside $batch; an id with its quotes and comma is 39 bytes.
const (
	idsPerURL    = 700
	idsPerPart   = 1400
	partsPerRead = 4
	// gonePerCall is how many records Gone asks for in a call: as many as a batch takes.
	gonePerCall = 1000
)

func decodeJSON(text string, into any) bool { return json.Unmarshal([]byte(text), into) == nil }

// escapeQuery encodes a value of a query, blanks as %20.
func escapeQuery(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// idsIn is a condition that a column is one of ids.
func idsIn(column string, ids []lockstep.ID) string {
	b := make([]byte, 0, 64+len(ids)*39)
	b = append(b, "Microsoft.Dynamics.CRM.In(PropertyName=%27"...)
	b = append(b, column...)
	b = append(b, "%27,PropertyValues=%5B"...)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '\'')
		b = id.Append(b)
		b = append(b, '\'')
	}
	return string(append(b, "%5D)"...))
}

// Records reads records by id: 700 in one plain call, or 5,600 in one $batch.
func (c *Client) Records(ctx context.Context, q lockstep.RecordQuery, ids []lockstep.ID, each func([]lockstep.Record) error) error {
	l, err := c.layoutFor(ctx, q)
	if err != nil {
		return err
	}
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	op := "read records of " + l.t.name
	base := api + l.t.set + "?$select=" + l.sel + "&$filter="
	ids = distinct(ids)
	if len(ids) == 0 {
		return nil
	}
	deliver := func(text string) error { return c.deliverAll(ctx, l, op, text, "", each) }
	if len(ids) <= idsPerURL {
		text, err := c.getTarget(ctx, op, "/"+l.t.set, base+idsIn(l.t.id, ids), c.pagePrefer(), 0)
		if err != nil {
			c.forget(l.t.name, err)
			return err
		}
		return deliver(text)
	}
	var targets []string
	for chunk := range slices.Chunk(ids, idsPerPart) {
		targets = append(targets, base+idsIn(l.t.id, chunk))
	}
	return c.readInBatch(ctx, l, op, targets, each)
}

// Gone asks for each record by itself, 1,000 in a call: Dynamics leaves records that the
// application user may not read out of its answers to queries, but refuses them when they
// are asked for by id.
func (c *Client) Gone(ctx context.Context, name string, ids []lockstep.ID) (gone []lockstep.ID, err error) {
	t, err := c.lookUpTable(ctx, name)
	if err != nil {
		return nil, err
	}
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	op := "look whether records of " + t.name + " exist"
	for group := range slices.Chunk(distinct(ids), gonePerCall) {
		parts := make([]part, len(group))
		for i, id := range group {
			parts[i] = part{method: http.MethodGet, target: api + t.set + "(" + id.String() + ")?$select=" + t.id}
		}
		answers, err := c.batch(ctx, op, parts)
		if err != nil {
			return nil, err
		}
		for i, a := range answers {
			switch {
			case a.err == nil:
			case a.err.Code == lockstep.CodeNotFound && a.err.Scope == lockstep.ScopeRecord:
				gone = append(gone, group[i])
			case a.err.Code == lockstep.CodeForbidden:
				return nil, hidden(t.name, a.err)
			default:
				c.forget(t.name, a.err)
				return nil, a.err
			}
		}
	}
	return gone, nil
}

// hidden is the refusal of a record that there is.
func hidden(table string, refused *lockstep.Error) error {
	e := *refused
	e.Scope = lockstep.ScopeBatch
	e.Msg = "records of the table " + table + " are there that the application user may not read: " + refused.Msg
	e.Hint = "give its security role the right to read all records of the table, at the depth of the organization; nobody was taken for deleted"
	return &e
}

// readInBatch reads several queries in as few calls as possible.
func (c *Client) readInBatch(ctx context.Context, l *layout, op string, targets []string, each func([]lockstep.Record) error) error {
	for group := range slices.Chunk(targets, partsPerRead) {
		parts := make([]part, len(group))
		for i, t := range group {
			parts[i] = part{method: http.MethodGet, target: t, prefer: c.pagePrefer()}
		}
		answers, err := c.batch(ctx, op, parts)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.err != nil {
				c.forget(l.t.name, a.err)
				return a.err
			}
			if err := c.deliverAll(ctx, l, op, a.body, "batch", each); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliverAll hands a page on, and the pages behind it. via "batch" keeps the
// addresses of these out of URLs too.
func (c *Client) deliverAll(ctx context.Context, l *layout, op, text, via string, each func([]lockstep.Record) error) error {
	for n := 0; ; n++ {
		p, err := l.decode(text, op)
		if err != nil {
			return err
		}
		if err := c.join(ctx, l, p); err != nil {
			return err
		}
		if len(p.records) > 0 {
			if err := each(p.records); err != nil {
				return err
			}
		}
		if p.next == "" {
			return nil
		}
		if n > maxEmptyPages {
			return garbled(op)
		}
		target, err := c.link(p.next)
		if err != nil {
			return err
		}
		if via == "batch" {
			text, err = c.getInBatch(ctx, op, target, c.pagePrefer())
		} else {
			text, err = c.getTarget(ctx, op, "/"+l.t.set, target, c.pagePrefer(), len(text))
		}
		if err != nil {
			return err
		}
	}
}

// FindByEmail reads active records by address. The query is always sent inside
// $batch. The server compares by its own collation, so each hit is compared again.
func (c *Client) FindByEmail(ctx context.Context, q lockstep.RecordQuery, emails []string, each func([]lockstep.Record) error) error {
	l, err := c.layoutFor(ctx, q)
	if err != nil {
		return err
	}
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	op := "find records of " + l.t.name + " by email"
	if l.email < 0 {
		return &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "dynamics: " + op, Msg: "the table " + l.t.name + " has no email address", Scope: lockstep.ScopeBatch}
	}
	base := api + l.t.set + "?$select=" + l.sel + "&$filter="
	if l.state >= 0 && !q.Inactive {
		base += "statecode%20eq%200%20and%20"
	}
	targets := emailsIn(base, emails)
	wanted := make(map[string]bool, len(emails))
	for _, e := range emails {
		wanted[e] = e != ""
	}
	return c.readInBatch(ctx, l, op, targets, func(records []lockstep.Record) error {
		kept := records[:0]
		for _, r := range records {
			if (q.Inactive || !r.Inactive) && wanted[lockstep.NormalizeEmail(r.Email)] {
				kept = append(kept, r)
			}
		}
		if len(kept) == 0 {
			return nil
		}
		return each(kept)
	})
}

// emailsIn writes the queries for records with one of these addresses, as few as the
// length of an address on the web allows. base ends where the condition begins. No
// stored address has a control character, so one that has is not asked for.
func emailsIn(base string, emails []string) []string {
	base += "Microsoft.Dynamics.CRM.In(PropertyName=%27emailaddress1%27,PropertyValues=%5B"
	asked := make(map[string]bool, len(emails))
	var targets []string
	var b strings.Builder
	count := 0
	flush := func() {
		if count > 0 {
			targets = append(targets, base+b.String()+"%5D)")
			b.Reset()
			count = 0
		}
	}
	for _, e := range emails {
		if e == "" || asked[e] || strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			continue
		}
		asked[e] = true
		v := escapeQuery(string(lockstep.AppendJSONString(nil, e)))
		if count >= 500 || len(base)+b.Len()+len(v) > maxURL {
			flush()
		}
		if count > 0 {
			b.WriteByte(',')
		}
		b.WriteString(v)
		count++
	}
	flush()
	return targets
}

// join fills in the columns that are one lookup away: one read for all rows of a
// page and each table that the lookup leads to.
func (c *Client) join(ctx context.Context, l *layout, p *page) error {
	for i, j := range l.joins {
		ids := distinct(p.lookups[i])
		if len(ids) == 0 {
			continue
		}
		relations, err := c.relationsOf(ctx, l.t)
		if err != nil {
			return err
		}
		byID := make(map[lockstep.ID][]int, len(ids))
		for row, id := range p.lookups[i] {
			if !id.IsZero() {
				byID[id] = append(byID[id], row)
			}
		}
		found := false
		for _, rel := range relations[j.lookup] {
			other, err := c.lookUpTable(ctx, rel.table)
			if err != nil {
				return err
			}
			q := lockstep.RecordQuery{Table: other.name}
			var at []int
			for k, name := range j.columns {
				if _, ok := other.columns[name]; ok { // a lookup to several tables need not have it on all
					q.Columns, at = append(q.Columns, name), append(at, j.at[k])
				}
			}
			if len(q.Columns) == 0 {
				continue
			}
			found = true
			err = c.Records(ctx, q, ids, func(records []lockstep.Record) error {
				for _, r := range records {
					for _, row := range byID[r.ID] {
						for k, v := range r.Values {
							p.records[row].Values[at[k]] = v
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if !found {
			return &lockstep.Error{
				Code: lockstep.CodeInvalid, Op: "dynamics: read " + l.t.name, Field: j.lookup + "." + j.columns[0], Scope: lockstep.ScopeBatch,
				Msg: "no table that the lookup " + j.lookup + " leads to has the column " + j.columns[0], Hint: "read the tables again and correct the mapping",
			}
		}
	}
	return nil
}

// distinct returns the ids without repeats and without the zero id, in order.
func distinct(ids []lockstep.ID) []lockstep.ID {
	seen := make(map[lockstep.ID]struct{}, len(ids))
	out := make([]lockstep.ID, 0, len(ids))
	for _, id := range ids {
		if _, ok := seen[id]; !ok && !id.IsZero() {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	return out
}
