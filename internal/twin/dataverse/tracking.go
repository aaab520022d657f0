package dataverse

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// trackState is where a tracked read stands. Its text travels in the skip token
// of the next page.
type trackState struct {
	delta bool
	from  int64    // delta: rows written after this version
	until int64    // versions after this one belong to the next delta
	at    int64    // delta: version of the last row or deletion delivered
	gone  bool     // delta: deletions have begun
	last  value.ID // baseline: primary key of the last row delivered
	taken time.Time
}

const tokenTime = "01/02/2006 15:04:05"

// encode writes the state as the inner cookie of a skip token.
func (s trackState) encode(t *schema.Table) string {
	var b strings.Builder
	b.WriteString(`<cookie page="1"><` + t.PrimaryID + ` last="{` + strings.ToUpper(s.last.String()) + `}"`)
	for _, n := range [...]struct {
		name string
		v    int64
	}{{"delta", bit(s.delta)}, {"from", s.from}, {"until", s.until}, {"at", s.at}, {"gone", bit(s.gone)}, {"taken", s.taken.Unix()}} {
		b.WriteString(" " + n.name + `="` + strconv.FormatInt(n.v, 10) + `"`)
	}
	b.WriteString(" /></cookie>")
	return b.String()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func decodeTrack(inner string) (trackState, error) {
	bad := badRequest("The $skiptoken is not valid.")
	get := func(name string) (string, bool) {
		_, rest, ok := strings.Cut(inner, " "+name+`="`)
		v, _, closed := strings.Cut(rest, `"`)
		return v, ok && closed
	}
	number := func(name string) int64 {
		v, ok := get(name)
		n, err := strconv.ParseInt(v, 10, 64)
		if !ok || err != nil {
			return -1
		}
		return n
	}
	last, ok := get("last")
	id, err := value.ParseID(last)
	s := trackState{
		delta: number("delta") == 1, from: number("from"), until: number("until"), at: number("at"), gone: number("gone") == 1,
		last: id, taken: time.Unix(number("taken"), 0).UTC(),
	}
	if !ok || err != nil || s.from < 0 || s.until < 0 || s.at < 0 || number("taken") < 0 {
		return s, bad
	}
	return s, nil
}

// trackable refuses tables without change tracking and callers whose right to
// read does not cover the whole organization.
func (c *call) trackable(t *schema.Table) error {
	switch {
	case t.Intersect:
		return fail(http.StatusBadRequest, codeTrackingIntersect, "Change tracking is not possible for the intersect entity %s.", t.Name)
	case !t.ChangeTracking:
		return fail(http.StatusBadRequest, codeTrackingOff, "Change tracking is not enabled for entity %s.", t.Name)
	}
	if c.user.rights[privilegeName("Read", t)] < globalDepth {
		return fail(http.StatusForbidden, codePrivilege, "Principal user (Id=%s, type=8) is missing %s privilege at organization depth, which change tracking needs.", c.user.id, privilegeName("Read", t))
	}
	return nil
}

// parseDelta reads a delta token: version!time of the snapshot.
func (c *call) parseDelta(token string) (int64, error) {
	bad := badRequest("The $deltatoken is not valid.")
	v, at, ok := strings.Cut(token, "!")
	n, err := strconv.ParseInt(v, 10, 64)
	if !ok || err != nil || n < 0 {
		return 0, bad
	}
	taken, err := time.Parse(tokenTime, at)
	if err != nil {
		return 0, bad
	}
	expired := fail(http.StatusBadRequest, codeExpiredVersion, "Version stamp associated with the client has expired. Please perform a full sync.")
	if c.now.Sub(taken) > c.retention() || taken.Sub(c.now) > 24*time.Hour {
		return 0, expired
	}
	if _, hit := c.s.faults.Take("dataverse", "delta-expired", c.op); hit {
		return 0, expired
	}
	if n < c.s.trackFloor() {
		return 0, expired
	}
	return n, nil
}

// retention is how long delta tokens live: the organization's setting in days.
func (c *call) retention() time.Duration {
	days := int64(7)
	if r := c.view.Get("organization", c.s.org.id); r != nil {
		if v := r.Value(int(c.sch.Table("organization").Column("expirechangetrackingindays").Ord)); !v.IsNull() {
			days = v.Int()
		}
	}
	return time.Duration(days) * 24 * time.Hour
}

// tracked answers the pages of a baseline and of a delta.
func (c *call) tracked(t *schema.Table, q *query.Query) (*answer, error) {
	if err := c.trackable(t); err != nil {
		return nil, err
	}
	if err := q.RefuseTracking(); err != nil {
		return nil, err
	}
	if q.Fetch || q.Aggregate || q.Count {
		return nil, badRequest("The query option is not supported with change tracking.")
	}
	state := trackState{until: c.view.Version(), taken: c.now}
	switch {
	case q.SkipToken != "":
		_, inner, _, err := query.ParseSkipToken(q.SkipToken)
		if err != nil {
			return nil, err
		}
		if state, err = decodeTrack(inner); err != nil {
			return nil, err
		}
	case q.DeltaToken != "":
		from, err := c.parseDelta(q.DeltaToken)
		if err != nil {
			return nil, err
		}
		state.delta, state.from, state.at = true, from, from
	}
	size := pageSize(c.prefer.pageSize)
	c.drift(t)
	body := c.trackedPage(t, q, &state, size)
	a := pageAnswer(body)
	if applied := c.prefer.applied(false, true, true); applied != "" {
		a.set("Preference-Applied", applied)
	}
	return a, nil
}

func (c *call) trackedPage(t *schema.Table, q *query.Query, s *trackState, size int) []byte {
	p := c.projection(t, columnsOf(t, q.Outputs))
	dst := pageBuffer()
	dst = append(dst, `{"@odata.context":`...)
	context := c.context() + contextOf(t, q)
	if s.delta {
		context += "/$delta"
	}
	dst = value.AppendString(dst, context)
	dst = append(dst, `,"value":[`...)
	comma := func() {
		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}
	}
	skip := c.skipOne()
	write := func(rows []*store.Row) {
		for i, r := range rows {
			if i%store.WarmRows == 0 {
				store.Warm(rows[i:min(i+store.WarmRows, len(rows))])
			}
			if skip && i == 1 {
				continue
			}
			comma()
			dst = append(p.appendRow(dst, r), '}')
		}
	}
	start, more, variant := len(dst), false, ""
	if !s.delta {
		rows := c.view.Page(nil, t.Name, s.last, size+1)
		if more = len(rows) > size; more {
			rows = rows[:size]
		}
		write(rows)
		if len(rows) > 0 {
			s.last = rows[len(rows)-1].ID
			if more {
				variant = c.repeat()
			}
			if variant == dupRows && len(rows) > 1 {
				s.last = rows[len(rows)-2].ID
			}
		}
	} else {
		room := size
		if !s.gone {
			rows := c.view.Changed(nil, t.Name, s.at, s.until, size+1)
			if more = len(rows) > size; more {
				rows = rows[:size]
			}
			write(rows)
			room -= len(rows)
			if more {
				s.at = rows[len(rows)-1].Version
				if variant = c.repeat(); variant == dupRows && len(rows) > 1 {
					s.at = rows[len(rows)-2].Version
				}
			} else {
				s.gone, s.at = true, s.from
			}
		}
		if !more {
			dead := c.view.Deleted(nil, t.Name, s.at, s.until, room+1)
			if more = len(dead) > room; more {
				dead = dead[:room]
			}
			for _, d := range dead {
				comma()
				dst = append(dst, `{"@odata.context":`...)
				dst = value.AppendString(dst, c.context()+t.Set+"/$deletedEntity")
				dst = append(dst, `,"id":"`...)
				dst = d.ID.Append(dst)
				dst = append(dst, `","reason":"deleted"}`...)
				s.at = d.Version
			}
		}
	}
	if more {
		if variant == dupEmpty {
			dst = dst[:start]
		}
		dst = append(dst, `],"@odata.nextLink":`...)
		dst = value.AppendString(dst, c.bend(c.link("$skiptoken", query.SkipToken(2, s.encode(t), true)), variant))
		return append(dst, '}')
	}
	dst = append(dst, `],"@odata.deltaLink":`...)
	dst = value.AppendString(dst, c.link("$deltatoken", strconv.FormatInt(s.until, 10)+"!"+s.taken.Format(tokenTime)))
	return append(dst, '}')
}

// countChanges answers /$count?$deltatoken=….
func (c *call) countChanges(t *schema.Table, q *query.Query) (int, error) {
	if err := c.trackable(t); err != nil {
		return 0, err
	}
	from, err := c.parseDelta(q.DeltaToken)
	if err != nil {
		return 0, err
	}
	until := c.view.Version()
	return len(c.view.Changed(nil, t.Name, from, until, maxCount)) + len(c.view.Deleted(nil, t.Name, from, until, maxCount)), nil
}
