package twin

import (
	"encoding/json"
	"strconv"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/history"
)

// recordRows notes an organization's write. It runs inside of the write.
func (t *Twins) recordRows(w dataverse.Write) {
	e := history.Entry{
		Time: w.Time, Twin: fault.Dataverse, Operation: w.Operation, Kind: w.Kind, Table: w.Table, Version: w.Version,
	}
	switch {
	case w.Kind == "restore":
		e.ID = strconv.Itoa(w.Undone)
	case w.Path != "":
		e.ID = w.Path
	default:
		e.ID = w.ID.String()
	}
	if !w.Caller.IsZero() {
		e.Principal = w.Caller.String()
	}
	if w.User != w.Caller {
		e.OnBehalfOf = w.User.String()
	}
	if len(w.Columns) > 0 {
		e.Changes = make([]history.Change, len(w.Columns))
	}
	for i, name := range w.Columns {
		e.Changes[i] = history.Change{Name: name, Old: w.Old[i].AppendJSON(nil), New: w.New[i].AppendJSON(nil)}
	}
	t.History.Add(e)
}

// recordContacts returns what notes the writes of one email account. Contacts that
// are loaded past the API are no writes.
func (t *Twins) recordContacts(account int32) func(dotdigital.Write) {
	return func(w dotdigital.Write) {
		if w.Source == "loader" {
			return
		}
		e := history.Entry{
			Time: w.Time, Twin: fault.Dotdigital, Account: account, Operation: w.Operation, Kind: w.Kind, Principal: w.Principal,
			ID: w.Object, Email: w.Email, List: w.List,
		}
		if w.ContactID != 0 {
			e.ID = strconv.FormatInt(w.ContactID, 10)
		}
		for _, c := range w.Changes {
			e.Changes = append(e.Changes, history.Change{Name: c.Name, Old: json.RawMessage(c.Old), New: json.RawMessage(c.New)})
		}
		t.History.Add(e)
	}
}
