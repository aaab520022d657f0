package webapi

import (
	"context"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// optOutFeed begins the cursors of OptOuts: "o.<table>.<time of the newest row>".
const optOutFeed = "o"

const cursorTime = "20060102T150405Z"

var _ lockstep.OptOutReader = (*Client)(nil)

// OptOuts reads the records of a table whose users closed them to email or bulk
// email, oldest modification first, 5,000 a call. A cursor reaches ten minutes back
// from the newest modification that was read, because transactions become visible in
// another order than their times; the time is the service's, never ours. The cursor
// that comes with an error covers what was delivered before it.
//
// A record that is opened again does not come: it is seen when it is next read.
func (c *Client) OptOuts(ctx context.Context, table string, since lockstep.Cursor, each func([]lockstep.Record) error) (lockstep.Cursor, error) {
	op := "read opt-outs of " + table
	newest, err := optOutTime(table, since, op)
	if err != nil {
		return "", err
	}
	l, err := c.layoutFor(ctx, lockstep.RecordQuery{Table: table})
	if err != nil {
		return since, err
	}
	var closed []string
	for _, name := range []string{"donotemail", "donotbulkemail"} {
		if _, ok := l.t.columns[name]; ok {
			closed = append(closed, name+"%20eq%20true")
		}
	}
	if len(closed) == 0 || l.modified < 0 {
		return since, &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Msg: "the table " + table + " does not say whether its records may be mailed"}
	}
	api, err := c.api(ctx)
	if err != nil {
		return since, err
	}
	target := api + l.t.set + "?$select=" + l.sel + "&$filter=(" + strings.Join(closed, "%20or%20") + ")"
	if !newest.IsZero() {
		target += "%20and%20modifiedon%20ge%20" + newest.Add(-overlap).Format("2006-01-02T15:04:05Z")
	}
	// The id decides between equal times, so that a page can end among them.
	target += "&$orderby=modifiedon%20asc," + l.t.id + "%20asc"
	end := since
	err = c.pages(ctx, l, op, target, c.pagePrefer(), func(p *page, _ string) error {
		if len(p.records) > 0 {
			if err := each(p.records); err != nil {
				return err
			}
		}
		for i := range p.records {
			if m := p.records[i].Modified; m.After(newest) {
				newest = m
			}
		}
		end = optOutCursor(table, newest)
		return nil
	})
	c.forget(l.t.name, err)
	return end, err
}

func optOutCursor(table string, newest time.Time) lockstep.Cursor {
	mark := ""
	if !newest.IsZero() {
		mark = newest.UTC().Format(cursorTime)
	}
	return lockstep.Cursor(optOutFeed + "." + table + "." + mark)
}

func optOutTime(table string, since lockstep.Cursor, op string) (time.Time, error) {
	if since == "" {
		return time.Time{}, nil
	}
	mark, ok := strings.CutPrefix(string(since), optOutFeed+"."+table+".")
	if !ok {
		return time.Time{}, badCursor(op)
	}
	if mark == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(cursorTime, mark)
	if err != nil {
		return time.Time{}, badCursor(op)
	}
	return at, nil
}
