package webapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

// memberTables are the tables by list.createdfromcode.
var memberTables = map[string]string{"1": "account", "2": "contact", "4": "lead"}

const listColumns = "listid,listname,type,createdfromcode,query,lockstatus,statecode,membercount,modifiedon,lastusedon"

var listCells = pagescan.NewColumns(append([]string{"@odata.etag"}, strings.Split(listColumns, ",")...)...)

// Lists reads all marketing lists, 5,000 a call.
func (c *Client) Lists(ctx context.Context) ([]lockstep.MarketingList, error) {
	const op = "read marketing lists"
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	var out []lockstep.MarketingList
	err = c.rows(ctx, op, "/lists", api+"lists?$select="+listColumns, c.pagePrefer(), listCells, listRow, func(rows [][]pagescan.Cell) error {
		for _, r := range rows {
			member, ok := memberTables[r[4].Raw()]
			if !ok {
				continue
			}
			l := lockstep.MarketingList{Version: etagVersion(r[0].Raw()), MemberTable: member, Dynamic: r[3].Kind() == pagescan.True, Locked: r[6].Kind() == pagescan.True, Inactive: r[7].Raw() != "0"}
			var err error
			if l.ID, err = lockstep.ParseID(r[1].Text()); err != nil {
				return garbled(op)
			}
			// Lists live long; their pages should not.
			if r[2].Kind() == pagescan.String {
				l.Name = strings.Clone(r[2].Text())
			}
			if r[5].Kind() == pagescan.String {
				l.Query = strings.Clone(r[5].Text())
			}
			if r[8].Kind() == pagescan.Number {
				l.Members, _ = strconv.Atoi(r[8].Raw())
			}
			if l.Modified, err = instant(r[9]); err != nil {
				return garbled(op)
			}
			if l.Used, err = instant(r[10]); err != nil {
				return garbled(op)
			}
			out = append(out, l)
		}
		return nil
	})
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return nil, &lockstep.Error{
			Code: lockstep.CodeUnsupported, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Err: err,
			Msg: "this organization has no marketing lists", Hint: "marketing lists come with the Sales or Marketing app of Dynamics: install it",
		}
	}
	return out, err
}

// rows reads the pages of a query that does not read records. The cells handed to
// each are valid during the call; their texts as long as they are kept.
func (c *Client) rows(ctx context.Context, op, route, target, prefer string, cols *pagescan.Columns, maxRow int, each func(rows [][]pagescan.Cell) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func(target string, hint int) <-chan fetched {
		ch := make(chan fetched, 1)
		go func() {
			text, err := c.getTarget(ctx, op, route, target, prefer, hint)
			ch <- fetched{text, target, err}
		}()
		return ch
	}
	asked := map[string]bool{target: true}
	var rows [][]pagescan.Cell
	for pending := start(target, 0); ; {
		var got fetched
		select {
		case got = <-pending:
		case <-ctx.Done():
			return cancelled(op, ctx.Err())
		}
		if got.err != nil {
			return got.err
		}
		guess := ""
		if v, ok := pagescan.Peek(got.text, "@odata.nextLink"); ok {
			if t, err := c.link(v); err == nil && !asked[t] {
				guess = t
				pending = start(t, len(got.text))
			}
		}
		p := pagescan.New(got.text, "value", cols)
		p.MaxRow = maxRow
		rows = rows[:0]
		slab := make([]pagescan.Cell, 0)
		for {
			if len(slab) < cols.Len() {
				slab = make([]pagescan.Cell, 500*cols.Len())
			}
			cells := slab[:cols.Len():cols.Len()]
			ok, err := p.Next(cells)
			if err != nil {
				e := garbled(op)
				e.Err = err
				return e
			}
			if !ok {
				break
			}
			slab = slab[cols.Len():]
			rows = append(rows, cells)
		}
		if len(rows) > 0 {
			if err := each(rows); err != nil {
				return err
			}
		}
		link := p.Member("@odata.nextLink").Text()
		if link == "" {
			return nil
		}
		next, err := c.link(link)
		if err != nil {
			return err
		}
		if asked[next] || len(asked) > 1_000_000 {
			e := garbled(op)
			e.Msg = "the pages of Dynamics lead in a circle"
			return e
		}
		asked[next] = true
		if next != guess {
			pending = start(next, len(got.text))
		}
	}
}

// sweepAll is the number of lists above which one sweep over the memberships of
// all lists is taken instead of a condition on theirs.
const sweepAll = 20

var memberCells = pagescan.NewColumns("_listid_value", "_entityid_value", "versionnumber", "@odata.etag")

// StaticMembers sweeps the memberships of static lists, 5,000 a call.
func (c *Client) StaticMembers(ctx context.Context, q lockstep.MemberQuery, each func([]lockstep.ListMember) error) error {
	const op = "read list members"
	if len(q.Lists) == 0 {
		return nil
	}
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	target := api + "listmembers?$select=_listid_value,_entityid_value,versionnumber"
	var filter []string
	switch lists := distinct(q.Lists); {
	case len(lists) == 1:
		filter = append(filter, "_listid_value%20eq%20"+lists[0].String())
	case len(lists) <= sweepAll:
		filter = append(filter, idsIn("listid", lists))
	}
	if q.AfterVersion > 0 {
		filter = append(filter, "versionnumber%20gt%20"+strconv.FormatInt(q.AfterVersion, 10))
	}
	if len(filter) > 0 {
		target += "&$filter=" + strings.Join(filter, "%20and%20")
	}
	var members []lockstep.ListMember
	return c.rows(ctx, op, "/listmembers", target, c.pagePrefer(), memberCells, 0, func(rows [][]pagescan.Cell) error {
		members = members[:0]
		for _, r := range rows {
			var m lockstep.ListMember
			var err error
			if r[1].Kind() == pagescan.Null {
				continue // its record is gone
			}
			if m.List, err = lockstep.ParseID(r[0].Text()); err != nil {
				return garbled(op)
			}
			if m.Record, err = lockstep.ParseID(r[1].Text()); err != nil {
				return garbled(op)
			}
			if r[2].Kind() == pagescan.Number {
				m.Version, _ = strconv.ParseInt(r[2].Raw(), 10, 64)
			} else {
				m.Version = etagVersion(r[3].Raw())
			}
			members = append(members, m)
		}
		return each(members)
	})
}

// DynamicMembers evaluates a dynamic list, 5,000 a call: its query with nothing but
// the key as a result, each record once, in the order of the keys. It goes on behind
// the last key that was read, so that whoever joined or left before it meanwhile
// displaces nobody.
func (c *Client) DynamicMembers(ctx context.Context, list lockstep.MarketingList, from lockstep.Cursor, each func(lockstep.IDPage) error) error {
	return c.evaluate(ctx, list, nil, from, each)
}

// DynamicMembersAmong evaluates a dynamic list for some records, 300 a call.
func (c *Client) DynamicMembersAmong(ctx context.Context, list lockstep.MarketingList, among []lockstep.ID, each func([]lockstep.ID) error) error {
	for chunk := range slices.Chunk(among, lockstep.TestedMembers) {
		if err := c.evaluate(ctx, list, chunk, "", func(p lockstep.IDPage) error { return each(p.IDs) }); err != nil {
			return err
		}
	}
	return nil
}

// evaluate runs the query of a dynamic list, narrowed to these records when there
// are any.
func (c *Client) evaluate(ctx context.Context, list lockstep.MarketingList, among []lockstep.ID, from lockstep.Cursor, each func(lockstep.IDPage) error) error {
	op := "evaluate the dynamic list " + list.ID.String()
	f, err := parseFetch(list.Query, list.MemberTable)
	if err != nil {
		e := *lockstep.AsError(err)
		e.Op = "dynamics: " + op
		return &e
	}
	t, err := c.lookUpTable(ctx, list.MemberTable)
	if err != nil {
		return err
	}
	return c.keys(ctx, op, f, t, among, from, each)
}

// A position within the keys is "<hash of the query>.<page>.<paging cookie>".
func keysPosition(f *fetchQuery, page int, cookie string) lockstep.Cursor {
	return lockstep.Cursor(fmt.Sprintf("%016x.%d.%s", f.hash(), page, cookie))
}

// parseKeysPosition is the reverse of keysPosition; a position in another query's keys
// is none.
func parseKeysPosition(f *fetchQuery, from lockstep.Cursor) (page int, cookie string, ok bool) {
	hash, rest, _ := strings.Cut(string(from), ".")
	number, cookie, _ := strings.Cut(rest, ".")
	page, err := strconv.Atoi(number)
	return page, cookie, err == nil && page > 1 && cookie != "" && hash == fmt.Sprintf("%016x", f.hash())
}

// keys runs a query over t for nothing but the keys, narrowed to these records when
// there are any.
func (c *Client) keys(ctx context.Context, op string, f *fetchQuery, t *table, among []lockstep.ID, from lockstep.Cursor, each func(lockstep.IDPage) error) error {
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	first, cookie := 1, ""
	if from != "" {
		var ok bool
		if first, cookie, ok = parseKeysPosition(f, from); !ok {
			return notThere(op, nil)
		}
	}
	cols := pagescan.NewColumns(t.id)
	cells := make([]pagescan.Cell, 1)
	const prefer = `odata.include-annotations="Microsoft.Dynamics.CRM.fetchxmlpagingcookie,Microsoft.Dynamics.CRM.morerecords"`
	for n := first; ; n++ {
		target := api + t.set + "?fetchXml=" + escapeQuery(f.members(t.id, among, c.pageRows, n, cookie))
		text, err := c.getTarget(ctx, op, "/"+t.set+"?fetchXml", target, prefer, 0)
		if err != nil {
			e := *lockstep.AsError(err)
			if e.Code == lockstep.CodeNotFound {
				e.Code = lockstep.CodeInvalid
			}
			if from != "" && n == first && e.Code == lockstep.CodeInvalid {
				return notThere(op, &e) // if it is the query, beginning anew will tell
			}
			return &e
		}
		p := pagescan.New(text, "value", cols)
		ids := make([]lockstep.ID, 0, c.pageRows)
		for {
			ok, err := p.Next(cells)
			if err != nil {
				e := garbled(op)
				e.Err = err
				return e
			}
			if !ok {
				break
			}
			id, err := lockstep.ParseID(cells[0].Text())
			if err != nil {
				return garbled(op)
			}
			ids = append(ids, id)
		}
		page := lockstep.IDPage{IDs: ids}
		more := p.Member("@Microsoft.Dynamics.CRM.morerecords")
		goesOn := more.Kind() == pagescan.True || strings.EqualFold(more.Text(), "true")
		if goesOn {
			next := pagingCookie(p.Member("@Microsoft.Dynamics.CRM.fetchxmlpagingcookie").Text())
			if next == "" || next == cookie || len(ids) == 0 {
				e := garbled(op)
				e.Msg = "Dynamics did not say where the next page begins"
				return e
			}
			cookie = next
			page.Resume = keysPosition(f, n+1, cookie)
		}
		if len(ids) > 0 {
			if err := each(page); err != nil {
				return err
			}
		}
		if !goesOn {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return cancelled(op, err)
		}
	}
}

// notThere is the answer to a position within keys that cannot be taken up.
func notThere(op string, cause error) error {
	return &lockstep.Error{
		Code: lockstep.CodeExpired, Op: "dynamics: " + op, Scope: lockstep.ScopeBatch, Err: cause,
		Msg: "the reading cannot go on where it was interrupted",
	}
}

// QueryTables names the tables that decide who is in a dynamic list.
func (c *Client) QueryTables(list lockstep.MarketingList) (tables []string, volatile bool, err error) {
	f, err := parseFetch(list.Query, list.MemberTable)
	if err != nil {
		return nil, false, err
	}
	return f.tables, f.volatile, nil
}

// DecideMembers decides queries that ask for nothing but whether a record is active.
func (c *Client) DecideMembers(list lockstep.MarketingList) func(*lockstep.Record) bool {
	f, err := parseFetch(list.Query, list.MemberTable)
	if err != nil || !f.decided {
		return nil
	}
	return func(r *lockstep.Record) bool {
		return !r.Deleted && !slices.ContainsFunc(f.tests, func(t test) bool { return !t(r) })
	}
}

// AddMembers adds records to a static list, a thousand a call. A call that one
// record spoils is repeated record by record, a hundred in each $batch.
func (c *Client) AddMembers(ctx context.Context, list lockstep.ID, table string, ids []lockstep.ID) ([]*lockstep.Error, error) {
	op := "add members to the list " + list.String()
	if table != "contact" && table != "lead" && table != "account" {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "dynamics: " + op, Msg: fmt.Sprintf("records of %.60q cannot be members of a list", table), Scope: lockstep.ScopeBatch}
	}
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]*lockstep.Error, len(ids))
	for at := 0; at < len(ids); at += bindMembers {
		chunk := ids[at:min(at+bindMembers, len(ids))]
		body := []byte(`{"List":{"@odata.type":"Microsoft.Dynamics.CRM.list","listid":"` + list.String() + `"},"Members":[`)
		for i, id := range chunk {
			if i > 0 {
				body = append(body, ',')
			}
			body = append(body, `{"@odata.type":"Microsoft.Dynamics.CRM.`+table+`","`+table+`id":"`...)
			body = append(id.Append(body), `"}`...)
		}
		_, _, err := c.fetch(ctx, request{op: op, method: post, target: api + "AddListMembersList", route: "/AddListMembersList", body: append(body, "]}"...), repeatable: true, rows: len(chunk)})
		switch {
		case err == nil:
			continue
		case !rowMayBeAtFault(err):
			return results, partly(err, at > 0)
		}
		parts := make([]part, len(chunk))
		for i, id := range chunk {
			parts[i] = part{method: post, target: api + "lists(" + list.String() + ")/Microsoft.Dynamics.CRM.AddMemberList", body: []byte(`{"EntityId":"` + id.String() + `"}`)}
		}
		if err := c.each(ctx, op, parts, results[at:at+len(chunk)]); err != nil {
			return results, partly(err, at > 0)
		}
		if err := c.listGone(ctx, list, results[at:at+len(chunk)]); err != nil {
			return results, partly(err, at > 0)
		}
	}
	return results, nil
}

// RemoveMembers removes records from a static list, a hundred a call.
func (c *Client) RemoveMembers(ctx context.Context, list lockstep.ID, ids []lockstep.ID) ([]*lockstep.Error, error) {
	op := "remove members from the list " + list.String()
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]*lockstep.Error, len(ids))
	parts := make([]part, len(ids))
	for i, id := range ids {
		parts[i] = part{method: post, target: api + "lists(" + list.String() + ")/Microsoft.Dynamics.CRM.RemoveMemberList", body: []byte(`{"EntityId":"` + id.String() + `"}`)}
	}
	if err := c.each(ctx, op, parts, results); err != nil {
		return results, err
	}
	for i, e := range results {
		if e != nil && codeOf(e) == errNotAMember {
			results[i] = nil
		}
	}
	return results, c.listGone(ctx, list, results)
}

// listGone tells a list that is missing from members that are: the service
// answers both with the same code.
func (c *Client) listGone(ctx context.Context, list lockstep.ID, results []*lockstep.Error) error {
	if len(results) == 0 {
		return nil
	}
	for _, e := range results {
		if e == nil || e.Code != lockstep.CodeNotFound {
			return nil
		}
	}
	api, err := c.api(ctx)
	if err != nil {
		return err
	}
	_, _, err = c.fetch(ctx, request{op: "look for the list " + list.String(), method: http.MethodGet, target: api + "lists(" + list.String() + ")?$select=listid", route: "/lists()", repeatable: true})
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return &lockstep.Error{Code: lockstep.CodeNotFound, Op: "dynamics", Msg: "the marketing list " + list.String() + " does not exist", Scope: lockstep.ScopeBatch, Upstream: lockstep.AsError(err).Upstream}
	}
	return err
}

// each carries out operations one by one, a hundred in a call. Operations that the
// service puts off are repeated up to five times.
func (c *Client) each(ctx context.Context, op string, parts []part, results []*lockstep.Error) error {
	for at := 0; at < len(parts); at += batchParts {
		open := make([]int, 0, batchParts)
		for i := at; i < min(at+batchParts, len(parts)); i++ {
			open = append(open, i)
		}
		for attempt := 0; len(open) > 0; attempt++ {
			group := make([]part, len(open))
			for i, k := range open {
				group[i] = parts[k]
			}
			answers, err := c.batch(ctx, op, group)
			if err != nil {
				return partly(err, at > 0 || attempt > 0)
			}
			var again []int
			pause := time.Duration(0)
			for i, k := range open {
				e := answers[i].err
				results[k] = e
				if e == nil {
					continue
				}
				if isTransient(e) && attempt < 4 {
					again = append(again, k)
					pause = max(pause, e.After, time.Duration(attempt+1)*time.Second)
					continue
				}
				if wide(e) {
					return partly(e, i > 0 || at > 0 || attempt > 0)
				}
				e.Scope = lockstep.ScopeRecord
			}
			open = again
			if len(open) > 0 {
				if err := c.wait(ctx, op, pause); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
