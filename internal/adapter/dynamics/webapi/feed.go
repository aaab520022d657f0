package webapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// A cursor is "<kind>.<columns>.<rest>": the kind of feed, a hash of the columns
// it was begun with, and how to go on. A tracked feed goes on at an address of
// ours (path and query); a polled one from a time, within a read at an address.
const (
	trackedFeed = "t"
	polledFeed  = "p"
)

// overlap is how far a polled feed reaches back: transactions become visible in
// another order than their times.
const overlap = 10 * time.Minute

// maxEmptyPages is how many pages without a row may follow each other.
const maxEmptyPages = 1000

// pagePrefer asks for pages of our size; it must go with every page's request.
func (c *Client) pagePrefer() string { return fmt.Sprintf("odata.maxpagesize=%d", c.pageRows) }

// Changes reads what changed since from. A table without change tracking is read
// by modification time: rows of the last ten minutes come again, and deleted rows
// do not show; see TellsDeleted.
func (c *Client) Changes(ctx context.Context, q lockstep.RecordQuery, from lockstep.Cursor, each func(lockstep.RecordPage) error) (lockstep.Cursor, error) {
	l, err := c.layoutFor(ctx, q)
	if err != nil {
		return "", err
	}
	f := &feed{c: c, l: l, op: "read changes of " + l.t.name, each: each}
	if from == "" {
		if !l.t.tracked {
			return f.poll(ctx, time.Time{}, "")
		}
		end, err := f.track(ctx, "")
		if code := codeOf(err); (code == errTrackingOff || code == errTrackingNever) && !f.delivered {
			return f.poll(ctx, time.Time{}, "")
		}
		c.forget(l.t.name, err)
		return end, err
	}
	kind, rest, _ := strings.Cut(string(from), ".")
	hash, rest, ok := strings.Cut(rest, ".")
	if !ok || hash != l.hash() {
		return "", &lockstep.Error{Code: lockstep.CodeExpired, Op: "dynamics: " + f.op, Msg: "the columns that are read have changed since the last time", Scope: lockstep.ScopeBatch}
	}
	var end lockstep.Cursor
	switch kind {
	case trackedFeed:
		end, err = f.track(ctx, rest)
	case polledFeed:
		mark, target, _ := strings.Cut(rest, ".")
		since, perr := time.Parse(cursorTime, mark)
		if mark != "" && perr != nil {
			return "", badCursor(f.op)
		}
		end, err = f.poll(ctx, since, target)
	default:
		return "", badCursor(f.op)
	}
	c.forget(l.t.name, err)
	switch codeOf(err) {
	case errTrackingOff, errTrackingNever:
		err = &lockstep.Error{Code: lockstep.CodeExpired, Op: "dynamics: " + f.op, Msg: "change tracking was switched off for the table " + l.t.name, Scope: lockstep.ScopeBatch, Err: err}
	}
	return end, err
}

// TellsDeleted reports whether the feed of a cursor is one with change tracking: one by
// modification time does not show deleted rows.
func (c *Client) TellsDeleted(feed lockstep.Cursor) bool {
	kind, _, _ := strings.Cut(string(feed), ".")
	return kind != polledFeed
}

// Keys reads the ids of all records of a table, 5,000 a call, in the order of the keys.
func (c *Client) Keys(ctx context.Context, name string, from lockstep.Cursor, each func(lockstep.IDPage) error) error {
	t, err := c.lookUpTable(ctx, name)
	if err != nil {
		return err
	}
	err = c.keys(ctx, "read the ids of "+t.name, &fetchQuery{entity: t.name}, t, nil, from, each)
	c.forget(t.name, err)
	return err
}

func badCursor(op string) error {
	return &lockstep.Error{Code: lockstep.CodeExpired, Op: "dynamics: " + op, Msg: "the last position in the change feed cannot be read", Scope: lockstep.ScopeBatch}
}

// feed reads pages one behind the other.
type feed struct {
	c         *Client
	l         *layout
	op        string
	each      func(lockstep.RecordPage) error
	delivered bool
}

func (f *feed) cursor(kind, rest string) lockstep.Cursor {
	return lockstep.Cursor(kind + "." + f.l.hash() + "." + rest)
}

func (f *feed) deliver(ctx context.Context, p *page, resume lockstep.Cursor) error {
	if err := f.c.join(ctx, f.l, p); err != nil {
		return err
	}
	f.delivered = true
	return f.each(lockstep.RecordPage{Records: p.records, Resume: resume})
}

// track reads with change tracking, from a page or delta link on.
func (f *feed) track(ctx context.Context, target string) (lockstep.Cursor, error) {
	if target == "" {
		api, err := f.c.api(ctx)
		if err != nil {
			return "", err
		}
		target = api + f.l.t.set + "?$select=" + f.l.sel
	}
	delta := ""
	err := f.c.pages(ctx, f.l, f.op, target, "odata.track-changes,"+f.c.pagePrefer(), func(p *page, next string) error {
		resume := lockstep.Cursor("")
		if next != "" {
			resume = f.cursor(trackedFeed, next)
		} else if p.delta != "" {
			var err error
			if delta, err = f.c.link(p.delta); err != nil {
				return err
			}
			if setBack(target, delta) {
				return restored(f.op)
			}
		}
		return f.deliver(ctx, p, resume)
	})
	if err != nil {
		return "", err
	}
	if delta == "" {
		e := garbled(f.op)
		e.Msg = "Dynamics did not say where the next changes begin"
		return "", e
	}
	return f.cursor(trackedFeed, delta), nil
}

// versionOf reads the version of the organization out of the token of a delta link,
// which begins with it: "919042!08/22/2017 08:10:44" (Dataverse Web API, "Use change
// tracking"). ok is false for a link without a token, or with one of another form.
func versionOf(target string) (version int64, ok bool) {
	_, query, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, false
	}
	number, _, ok := strings.Cut(values.Get("$deltatoken"), "!")
	version, err = strconv.ParseInt(number, 10, 64)
	return version, ok && err == nil
}

// setBack reports whether the versions of the organization moved backwards between two
// delta links.
func setBack(before, now string) bool {
	was, knew := versionOf(before)
	is, knows := versionOf(now)
	return knew && knows && is < was
}

// SetBack asks for one changed row. A page that is followed by another one holds a row of
// a later version than the cursor's.
func (c *Client) SetBack(ctx context.Context, q lockstep.RecordQuery, from lockstep.Cursor) (bool, error) {
	const op = "ask whether the organization was set back"
	l, err := c.layoutFor(ctx, q)
	if err != nil {
		return false, err
	}
	target, tracked := strings.CutPrefix(string(from), trackedFeed+"."+l.hash()+".")
	if _, told := versionOf(target); !tracked || !told {
		return false, nil
	}
	text, err := c.getTarget(ctx, op, "/"+l.t.set, target, "odata.track-changes,odata.maxpagesize=1", 0)
	if err != nil {
		c.forget(l.t.name, err)
		return false, err
	}
	p, err := l.decode(text, op)
	if err != nil || p.next != "" || p.delta == "" {
		return false, err
	}
	link, err := c.link(p.delta)
	return err == nil && setBack(target, link), err
}

// restored is the answer to a position that the organization has not reached yet:
// its versions moved backwards, so changes below the position would never be seen.
func restored(op string) error {
	return &lockstep.Error{
		Code: lockstep.CodeExpired, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Err: lockstep.ErrSetBack,
		Msg: "the organization was reset to an earlier state, perhaps from a backup",
	}
}

// poll reads by modification time, oldest first, so that the last row seen tells
// where to go on.
func (f *feed) poll(ctx context.Context, since time.Time, target string) (lockstep.Cursor, error) {
	t := f.l.t
	if f.l.modified < 0 {
		return "", &lockstep.Error{
			Code: lockstep.CodeUnsupported, Op: "dynamics: " + f.op, Scope: lockstep.ScopeBatch,
			Msg: "the table " + t.name + " has neither change tracking nor a modification time", Hint: "switch change tracking on in the table's properties",
		}
	}
	if target == "" {
		api, err := f.c.api(ctx)
		if err != nil {
			return "", err
		}
		target = api + t.set + "?$select=" + f.l.sel
		if !since.IsZero() {
			target += "&$filter=modifiedon%20ge%20" + since.Add(-overlap).UTC().Format("2006-01-02T15:04:05Z")
		}
		target += "&$orderby=modifiedon%20asc," + t.id + "%20asc"
	}
	mark := func(rest string) lockstep.Cursor {
		at := ""
		if !since.IsZero() {
			at = since.UTC().Format(cursorTime)
		}
		return f.cursor(polledFeed, at+"."+rest)
	}
	// A row that changes while we read comes again, on this page or the next.
	seen, before := map[lockstep.ID]int64{}, map[lockstep.ID]int64{}
	err := f.c.pages(ctx, f.l, f.op, target, f.c.pagePrefer(), func(p *page, next string) error {
		before, seen = seen, make(map[lockstep.ID]int64, len(p.records))
		kept := p.records[:0]
		for i, r := range p.records {
			if r.Modified.After(since) {
				since = r.Modified
			}
			if v, ok := before[r.ID]; ok && v == r.Version && v != 0 {
				continue
			}
			if v, ok := seen[r.ID]; ok && v == r.Version && v != 0 {
				continue
			}
			seen[r.ID] = r.Version
			for j := range p.lookups {
				p.lookups[j][len(kept)] = p.lookups[j][i]
			}
			kept = append(kept, r)
		}
		p.records = kept
		resume := lockstep.Cursor("")
		if next != "" {
			resume = mark(next)
		}
		return f.deliver(ctx, p, resume)
	})
	if err != nil {
		return "", err
	}
	return mark(""), nil
}

type fetched struct {
	text   string
	target string
	err    error
}

// pages reads the page at target and those behind it. While one page is decoded
// and handed on, the next is already on its way.
func (c *Client) pages(ctx context.Context, l *layout, op, target, prefer string, each func(p *page, next string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	route := "/" + l.t.set
	hint := 0
	start := func(target string) <-chan fetched {
		ch := make(chan fetched, 1)
		size := hint
		go func() {
			text, err := c.getTarget(ctx, op, route, target, prefer, size)
			ch <- fetched{text, target, err}
		}()
		return ch
	}
	asked := map[string]bool{target: true}
	empty := 0
	for pending := start(target); ; {
		var got fetched
		select {
		case got = <-pending:
		case <-ctx.Done():
			return cancelled(op, ctx.Err())
		}
		if got.err != nil {
			return got.err
		}
		hint = len(got.text) + len(got.text)/16
		guess := ""
		if v, ok := pagescan.Peek(got.text, "@odata.nextLink"); ok {
			if t, err := c.link(v); err == nil && !asked[t] {
				guess = t
				pending = start(t)
			}
		}
		p, err := l.decode(got.text, op)
		if err != nil {
			return err
		}
		next := ""
		if p.next != "" {
			if next, err = c.link(p.next); err != nil {
				return err
			}
			if asked[next] {
				e := garbled(op)
				e.Msg = "the pages of Dynamics lead in a circle"
				return e
			}
			asked[next] = true
		}
		if empty++; len(p.records) > 0 {
			empty = 0
		}
		if empty > maxEmptyPages {
			e := garbled(op)
			e.Msg = "Dynamics sends empty pages without end"
			return e
		}
		if err := each(p, next); err != nil {
			return err
		}
		switch {
		case next == "":
			return nil
		case next != guess:
			pending = start(next)
		}
	}
}

func cancelled(op string, err error) error {
	e := &lockstep.Error{Code: lockstep.CodeCancelled, Op: "dynamics: " + op, Msg: "the call was cancelled", Scope: lockstep.ScopeConnection, Err: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Code, e.Msg = lockstep.CodeUnavailable, "Dynamics did not answer in the time that this call may take"
	}
	return e
}

// CountRecords asks for the service's own count, at most a day old. Servers before
// version 9 count on the spot, up to 50,000.
func (c *Client) CountRecords(ctx context.Context, name string) (int64, error) {
	if !logicalName.MatchString(name) {
		return 0, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics", Msg: fmt.Sprintf("%.60q is not the logical name of a table", name), Scope: lockstep.ScopeBatch}
	}
	op := "count records of " + name
	if _, err := c.api(ctx); err != nil {
		return 0, err
	}
	if c.before9() {
		return c.countOnTheSpot(ctx, name, op)
	}
	text, err := c.get(ctx, op, "/RetrieveTotalRecordCount", "RetrieveTotalRecordCount(EntityNames=@p1)?@p1=%5B%22"+name+"%22%5D")
	if err != nil {
		return 0, err
	}
	var answer struct {
		EntityRecordCountCollection struct {
			Keys   []string
			Values []int64
		}
	}
	if !decodeJSON(text, &answer) {
		return 0, garbled(op)
	}
	counts := answer.EntityRecordCountCollection
	for i, k := range counts.Keys {
		if k == name && i < len(counts.Values) {
			return counts.Values[i], nil
		}
	}
	return 0, garbled(op)
}

func (c *Client) countOnTheSpot(ctx context.Context, name, op string) (int64, error) {
	t, err := c.lookUpTable(ctx, name)
	if err != nil {
		return 0, err
	}
	fetch := `<fetch aggregate="true"><entity name="` + t.name + `"><attribute name="` + t.id + `" alias="n" aggregate="count"/></entity></fetch>`
	text, err := c.get(ctx, op, "/"+t.set, t.set+"?fetchXml="+escapeQuery(fetch))
	if codeOf(err) == errTooManyToCount {
		return 0, &lockstep.Error{
			Code: lockstep.CodeUnsupported, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Err: err,
			Msg: "this version of Dynamics cannot count more than 50,000 records at once",
		}
	}
	if err != nil {
		return 0, err
	}
	var answer struct{ Value []struct{ N int64 } }
	if !decodeJSON(text, &answer) || len(answer.Value) != 1 {
		return 0, garbled(op)
	}
	return answer.Value[0].N, nil
}

// method names, so that write paths read alike.
const (
	post  = http.MethodPost
	patch = http.MethodPatch
)
