package webapi

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/fnv"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// relatedMarks is the kind of cursor of Dependants: a mark for each lookup and table
// that it leads to.
const relatedMarks = "r"

// maxRemembered bounds the records that a mark remembers.
const maxRemembered = 5000

// mark is how far the changes of a looked-up table were told. Transactions become
// visible in another order than their times, so a read reaches back, and what it finds
// there again is known by its version.
type mark struct {
	from  time.Time // where the next read begins; zero = never read
	known map[uint64]bool
}

// String is the mark within a cursor.
func (m mark) String() string {
	b := m.from.UTC().AppendFormat(nil, cursorTime)
	for _, v := range slices.Sorted(func(yield func(uint64) bool) {
		for v := range m.known {
			if !yield(v) {
				return
			}
		}
	}) {
		b = strconv.AppendUint(append(b, '.'), v, 36)
	}
	return string(b)
}

func parseMark(text string) (m mark, ok bool) {
	at, rest, _ := strings.Cut(text, ".")
	var err error
	if m.from, err = time.Parse(cursorTime, at); err != nil {
		return mark{}, false
	}
	m.known = map[uint64]bool{}
	for v := range strings.SplitSeq(rest, ".") {
		if n, err := strconv.ParseUint(v, 36, 64); err == nil {
			m.known[n] = true
		}
	}
	return m, true
}

// told is a record that a mark remembers.
type told struct {
	id   lockstep.ID
	at   time.Time
	hash uint64
}

func newTold(id lockstep.ID, version int64, at time.Time) told {
	h := fnv.New64a()
	_, _ = h.Write(id[:])
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(version)))
	return told{id, at, h.Sum64()}
}

// markAfter is the mark after a read that met these records.
func markAfter(from time.Time, met []told) mark {
	slices.SortFunc(met, func(a, b told) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.hash, b.hash)) })
	m := mark{from: from, known: map[uint64]bool{}}
	if len(met) == 0 {
		return m
	}
	m.from = met[0].at.Add(-overlap)
	if m.from.Before(from) {
		m.from = from
	}
	for _, t := range met {
		if len(m.known) == maxRemembered {
			m.from = t.at.Add(time.Second) // the rest must not come again and again
			break
		}
		if t.at.Before(m.from) {
			break
		}
		m.known[t.hash] = true
	}
	return m
}

// Dependants reads which records of the looked-up tables were modified, one call a
// table, and asks for what looks them up, 300 of them a call. A table without a
// modification time is left out.
func (c *Client) Dependants(ctx context.Context, q lockstep.RecordQuery, from lockstep.Cursor, each func([]lockstep.ID) error) (lockstep.Cursor, error) {
	l, err := c.layoutFor(ctx, q)
	if err != nil {
		return "", err
	}
	op := "read what looks up changed records from " + l.t.name
	was := url.Values{}
	if from != "" {
		kind, rest, _ := strings.Cut(string(from), ".")
		hash, rest, _ := strings.Cut(rest, ".")
		if was, err = url.ParseQuery(rest); err != nil || kind != relatedMarks || hash != l.hash() {
			return "", badCursor(op)
		}
	}
	marks := url.Values{}
	relations := map[string][]relation{}
	if len(l.joins) > 0 {
		if relations, err = c.relationsOf(ctx, l.t); err != nil {
			return "", err
		}
	}
	for _, j := range l.joins {
		for _, rel := range relations[j.lookup] {
			other, err := c.lookUpTable(ctx, rel.table)
			if err != nil {
				return "", err
			}
			has := func(column string) bool { _, ok := other.columns[column]; return ok }
			if !slices.ContainsFunc(j.columns, has) || !has("modifiedon") {
				continue
			}
			key := j.lookup + "." + other.name
			m, known := parseMark(was.Get(key))
			ids, next, err := c.modified(ctx, op, other, m, known)
			if err != nil {
				c.forget(other.name, err)
				return "", err
			}
			if known {
				for chunk := range slices.Chunk(ids, lockstep.TestedMembers) {
					if err := c.lookingUp(ctx, l.t, op, j.lookup, chunk, each); err != nil {
						return "", err
					}
				}
			}
			marks.Set(key, next.String())
		}
	}
	return lockstep.Cursor(relatedMarks + "." + l.hash() + "." + marks.Encode()), nil
}

// modified reads the records of a table that were modified since a mark and are not
// remembered by it. Without a mark it begins one with the latest change.
func (c *Client) modified(ctx context.Context, op string, t *table, since mark, known bool) ([]lockstep.ID, mark, error) {
	if !known {
		latest, err := c.modifiedRows(ctx, op, t, "&$orderby=modifiedon%20desc&$top=1", "")
		if err != nil || len(latest) == 0 {
			return nil, mark{from: time.Unix(0, 0)}, err
		}
		since.from = latest[0].at.Add(-overlap)
	}
	met, err := c.modifiedRows(ctx, op, t, "&$filter=modifiedon%20ge%20"+since.from.UTC().Format("2006-01-02T15:04:05Z"), c.pagePrefer())
	var ids []lockstep.ID
	for _, x := range met {
		if !since.known[x.hash] {
			ids = append(ids, x.id)
		}
	}
	return ids, markAfter(since.from, met), err
}

func (c *Client) modifiedRows(ctx context.Context, op string, t *table, query, prefer string) ([]told, error) {
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	var met []told
	cols := pagescan.NewColumns(t.id, "modifiedon", "@odata.etag")
	err = c.rows(ctx, op, "/"+t.set, api+t.set+"?$select="+t.id+",modifiedon"+query, prefer, cols, 0, func(rows [][]pagescan.Cell) error {
		for _, r := range rows {
			if r[1].Kind() == pagescan.Null {
				continue // without a time it would come every time
			}
			id, err := lockstep.ParseID(r[0].Text())
			if err != nil {
				return garbled(op)
			}
			at, err := time.Parse(time.RFC3339, r[1].Text())
			if err != nil {
				return garbled(op)
			}
			met = append(met, newTold(id, etagVersion(r[2].Raw()), at))
		}
		return nil
	})
	return met, err
}

// lookingUp tells which records of t look up one of these.
func (c *Client) lookingUp(ctx context.Context, t *table, op, lookup string, among []lockstep.ID, each func([]lockstep.ID) error) error {
	f := fetchQuery{entity: t.name}
	var b strings.Builder
	b.WriteString(`<filter><condition attribute="` + lookup + `" operator="in">`)
	for _, id := range among {
		b.WriteString(`<value>` + id.String() + `</value>`)
	}
	b.WriteString(`</condition></filter>`)
	f.body = b.String()
	return c.keys(ctx, op, &f, t, nil, "", func(p lockstep.IDPage) error { return each(p.IDs) })
}
