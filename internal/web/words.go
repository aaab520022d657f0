package web

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

var syncTitles = map[lockstep.SyncType]string{
	lockstep.SyncCRMMetadata:    "CRM metadata",
	lockstep.SyncDataLabels:     "Data labels",
	lockstep.SyncAddressBooksIn: "Address books in",
	lockstep.SyncMarketingLists: "Marketing lists",
	lockstep.SyncUndo:           "Undo",
}

func syncTitle(t lockstep.SyncType) string { return titled(syncTitles[t], string(t)) }

var statusTitles = map[lockstep.RunStatus]string{
	lockstep.RunQueued: "Queued", lockstep.RunInProcess: "In process", lockstep.RunCompleted: "Completed",
	lockstep.RunCompletedWithErrors: "Completed with findings", lockstep.RunFailed: "Failed", lockstep.RunCancelled: "Cancelled", lockstep.RunPreviewed: "Previewed",
}

func statusTitle(s lockstep.RunStatus) string { return titled(statusTitles[s], string(s)) }

// tone is the class that colours a status.
func tone(s lockstep.RunStatus) string {
	switch s {
	case lockstep.RunCompleted:
		return "good"
	case lockstep.RunCompletedWithErrors:
		return "warn"
	case lockstep.RunFailed:
		return "bad"
	case lockstep.RunInProcess, lockstep.RunPreviewed:
		return "busy"
	}
	return "calm"
}

func stateTone(s lockstep.ChangeState) string {
	switch s {
	case lockstep.Acknowledged:
		return "good"
	case lockstep.Refused:
		return "bad"
	case lockstep.Unknown:
		return "warn"
	}
	return "calm"
}

var actionTitles = map[lockstep.MembershipAction]string{
	lockstep.ActionIgnore: "Ignore strangers", lockstep.ActionRemove: "Remove strangers", lockstep.ActionAllowKnown: "Add known strangers",
	lockstep.ActionCreateLead: "Create leads", lockstep.ActionCreateContact: "Create contacts",
}

func actionTitle(l lockstep.ListSettings) string {
	if l.Dynamic {
		return "Mirror the list"
	}
	return titled(actionTitles[l.MembershipAction], string(l.MembershipAction))
}

var changeTitles = map[lockstep.ChangeKind]string{
	lockstep.RemoveFromBook: "Remove from address book", lockstep.CreateBook: "Create address book", lockstep.RenameBook: "Rename address book",
	lockstep.CreateField: "Create data field",
}

// bookTitle names an address book; one that the run has yet to make has no id of the
// platform's.
func bookTitle(b lockstep.BookID) string {
	if strings.HasPrefix(string(b), "new:") {
		return "the new address book"
	}
	return "address book " + string(b)
}

var winnerTitles = map[lockstep.Winner]string{
	lockstep.WinnerNewest: "newest wins", lockstep.WinnerCRM: "CRM wins", lockstep.WinnerPlatform: "platform wins", lockstep.WinnerHold: "held for a decision",
}

func titled(title, name string) string {
	if title != "" {
		return title
	}
	if name == "" {
		return name
	}
	name = strings.ReplaceAll(strings.ReplaceAll(name, "_", " "), "-", " ")
	return strings.ToUpper(name[:1]) + name[1:]
}

// count writes a number with thin groups of three, as people read them.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func lasted(r lockstep.Run, now time.Time) string {
	if r.Started.IsZero() {
		return "–"
	}
	end := r.Ended
	if end.IsZero() {
		end = now
	}
	d := max(0, end.Sub(r.Started))
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// shown is a value for people.
func shown(v lockstep.Value) string {
	switch {
	case v.IsAbsent():
		return "not known"
	case v.IsNull():
		return "empty"
	}
	return v.Text()
}

func isEmpty(v lockstep.Value) bool { return v.IsAbsent() || v.IsNull() }

// recordURL opens a record in Dynamics; empty when the organization's address is not
// known.
func recordURL(organization string, ref lockstep.Ref) string {
	if organization == "" || ref.Table == "" || ref.ID.IsZero() {
		return ""
	}
	return strings.TrimRight(organization, "/") + "/main.aspx?" + url.Values{"etn": {ref.Table}, "pagetype": {"entityrecord"}, "id": {ref.ID.String()}}.Encode()
}

// tried says how often a record was tried, before the time at which it is tried next.
func tried(attempts int) string {
	switch attempts {
	case 0:
		return "Tried again from"
	case 1:
		return "Tried once, again from"
	}
	return fmt.Sprintf("Tried %d times, again from", attempts)
}

// sentence makes a message look like one.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}
