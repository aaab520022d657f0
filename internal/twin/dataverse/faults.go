package dataverse

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// poison makes writes of given rows fail during one call.
type poison struct {
	ID      string   `json:"id"`
	IDs     []string `json:"ids"`
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Status  int      `json:"status"`
}

// disturb carries out the faults that act at the start of a call.
func (s *Server) disturb(c *call) {
	if hit, ok := s.faults.Take("dataverse", "row-poison", c.op); ok {
		p := &poison{}
		if json.Unmarshal(hit.Args, p) == nil {
			c.poison = p
		}
	}
	if c.tx != nil {
		return // the rest would have to wait for the transaction
	}
	if hit, ok := s.faults.Take("dataverse", "metadata-change", c.op); ok {
		s.changeMetadata(hit.Args)
	}
	if hit, ok := s.faults.Take("dataverse", "env-restore", c.op); ok {
		var args struct {
			Writes int `json:"writes"`
		}
		_ = json.Unmarshal(hit.Args, &args)
		if args.Writes <= 0 {
			args.Writes = 100
		}
		s.Restore(args.Writes)
		c.view = s.store.View() // the call already meets what was restored
	}
}

// Restore takes the last writes back, as an administrator who restores a backup
// does: rows reappear and vanish, row versions move backwards. It returns how
// many writes were taken back.
func (s *Server) Restore(writes int) int {
	n := s.store.Rewind(writes)
	s.tell(Write{Kind: "restore", Operation: "fault.env-restore", Undone: n, Time: s.clock.Now()})
	return n
}

// poisoned refuses the write of a row that a fault rule has poisoned. Without an
// id in its arguments a rule poisons every row.
func (c *call) poisoned(t *schema.Table, id value.ID) error {
	p := c.poison
	if p == nil {
		return nil
	}
	if ids := append(slices.Clone(p.IDs), p.ID); len(p.IDs) > 0 || p.ID != "" {
		if !slices.ContainsFunc(ids, func(s string) bool { other, err := value.ParseID(s); return err == nil && other == id }) {
			return nil
		}
	}
	code, message, status := p.Code, p.Message, p.Status
	if code == "" {
		code = codePluginAborted
	}
	if message == "" {
		message = "The " + t.Name + " cannot be saved: a business rule of this organization does not allow it."
	}
	if status == 0 {
		status = http.StatusBadRequest
		switch code {
		case codeDuplicateRecord, codeDuplicateKey, "0x80040333":
			status = http.StatusPreconditionFailed
		case codePrivilege:
			status = http.StatusForbidden
		}
	}
	return fail(status, code, "%s", message)
}

// skipOne reports whether a page is to lose a row.
func (c *call) skipOne() bool {
	_, hit := c.s.faults.Take("dataverse", "page-skip", c.op)
	return hit
}

// Variants of the fault page-dup.
const (
	dupRows  = "rows"  // the next page repeats rows of this one
	dupLoop  = "loop"  // the next link leads to this page again
	dupHost  = "host"  // the next link leads to another host
	dupEmpty = "empty" // this page is empty but has a next link, to itself
)

// repeat says how the next page is to repeat this one; "" when it is not. It is
// asked only where a page has a successor.
func (c *call) repeat() string {
	hit, ok := c.s.faults.Take("dataverse", "page-dup", c.op)
	if !ok {
		return ""
	}
	var args struct {
		Variant string `json:"variant"`
	}
	if json.Unmarshal(hit.Args, &args) != nil || args.Variant == "" {
		return dupRows
	}
	return args.Variant
}

// bend is the next link as a fault wants it.
func (c *call) bend(link, variant string) string {
	switch variant {
	case dupLoop, dupEmpty:
		link = c.root() + strings.Join(pathTexts(c.path), "/")
		if c.query != "" {
			link += "?" + c.query
		}
	case dupHost:
		link = "https://elsewhere.invalid" + strings.TrimPrefix(link, c.s.BaseURL())
	}
	return link
}

// drift writes to the table that is about to be read: rows appear, vanish and
// move between two pages.
func (c *call) drift(t *schema.Table) {
	hit, ok := c.s.faults.Take("dataverse", "page-drift", c.op)
	if !ok {
		return
	}
	args := struct {
		Updates int `json:"updates"`
		Inserts int `json:"inserts"`
		Deletes int `json:"deletes"`
	}{1, 1, 1}
	_ = json.Unmarshal(hit.Args, &args)
	_ = c.s.platform(func(p *call) error {
		p.tx.Operation = "fault.page-drift"
		rows := p.view.Page(nil, t.Name, value.ID{}, args.Updates+args.Inserts+args.Deletes)
		for i, r := range rows {
			cells := r.Cells(make([]store.Cell, t.Width()))
			switch {
			case i < args.Updates:
				p.stamp(t, cells, false)
				p.tx.Put(t.Name, store.NewRow(r.ID, p.tx.Next(), cells))
			case i < args.Updates+args.Inserts:
				p.stamp(t, cells, true)
				p.tx.Put(t.Name, store.NewRow(p.s.newID(), p.tx.Next(), cells))
			default:
				p.tx.Delete(t.Name, r.ID)
			}
		}
		return nil
	})
}

// throttleArgs lowers the limits by the arguments of a throttle rule; without
// any the call is simply refused.
func throttleArgs(l Limits, raw json.RawMessage) Limits {
	var args struct {
		Requests   int     `json:"requests"`
		Seconds    float64 `json:"seconds"`
		Concurrent int     `json:"concurrent"`
	}
	if json.Unmarshal(raw, &args) != nil {
		return l
	}
	if args.Requests > 0 {
		l.Requests = args.Requests
	}
	if args.Seconds > 0 {
		l.Execution = time.Duration(args.Seconds * float64(time.Second))
	}
	if args.Concurrent > 0 {
		l.Concurrent = args.Concurrent
	}
	return l
}

// metadataChange is a change of the schema behind a client's back.
type metadataChange struct {
	Table     string `json:"table"`
	Column    string `json:"column"`
	Change    string `json:"change"` // remove, rename, max-length, option-remove, option-relabel, tracking-off
	To        string `json:"to"`     // rename: the new name; option-relabel: the new label
	MaxLength int    `json:"max_length"`
	Option    int32  `json:"option"`
}

func (s *Server) changeMetadata(raw json.RawMessage) {
	var m metadataChange
	if json.Unmarshal(raw, &m) != nil {
		return
	}
	err := s.alter(func(d *schema.Draft) error {
		t := d.Table(m.Table)
		if t == nil {
			return noSegment(m.Table)
		}
		if m.Change == "tracking-off" {
			t.ChangeTracking = false
			return nil
		}
		old := t.Column(m.Column)
		if old == nil {
			return noSegment(m.Column)
		}
		col := *old
		switch m.Change {
		case "remove":
			t.RemoveColumn(m.Column)
			d.Unrelate(m.Table, m.Column)
			return nil
		case "rename":
			col.Name, col.SchemaName = m.To, m.To
		case "max-length":
			col.MaxLength = m.MaxLength
		case "option-remove":
			col.Options = slices.DeleteFunc(slices.Clone(col.Options), func(o schema.Option) bool { return o.Value == m.Option })
		case "option-relabel":
			col.Options = slices.Clone(col.Options)
			for i := range col.Options {
				if col.Options[i].Value == m.Option {
					col.Options[i].Label = m.To
				}
			}
		default:
			return noSegment(m.Change)
		}
		t.ReplaceColumn(m.Column, &col)
		return nil
	})
	if err == nil {
		s.tell(Write{Kind: "definition", Operation: "fault.metadata-change", Path: m.Table, Time: s.clock.Now()})
	}
	s.floor.Store(s.store.View().Version())
}

// trackFloor is the version below which delta tokens are void because the
// schema changed behind them.
func (s *Server) trackFloor() int64 { return s.floor.Load() }
