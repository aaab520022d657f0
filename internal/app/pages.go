package app

import (
	"context"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// ChangesPage returns up to limit changes of a run in the order in which they were
// journalled. cursor is empty for the first page and next of the page before
// afterwards; next is empty after the last page.
func (a *App) ChangesPage(ctx context.Context, run, cursor string, limit int) (changes []ShownChange, next string, err error) {
	after, skip, err := parseChangesCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	changes = []ShownChange{}
	for len(changes) < limit {
		batch, more, err := a.Changes(ctx, run, after, 1)
		if err != nil {
			return nil, "", err
		}
		batch = batch[min(skip, len(batch)):]
		if room := limit - len(changes); len(batch) > room {
			return append(changes, batch[:room]...), strconv.FormatInt(after, 10) + "." + strconv.Itoa(skip+room), nil
		}
		changes = append(changes, batch...)
		if more == 0 {
			return changes, "", nil
		}
		after, skip = more, 0
	}
	// The journal may end right here; a page that would be empty is not announced.
	rest, _, err := a.Changes(ctx, run, after, 1)
	if err != nil || len(rest) == 0 {
		return changes, "", err
	}
	return changes, strconv.FormatInt(after, 10) + ".0", nil
}

func parseChangesCursor(cursor string) (after int64, skip int, err error) {
	if cursor == "" {
		return 0, 0, nil
	}
	batch, n, ok := strings.Cut(cursor, ".")
	after, err1 := strconv.ParseInt(batch, 10, 64)
	skip, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil || after < 0 || skip < 0 {
		return 0, 0, invalid("cursor", "the cursor is not one of ours", "use \"next\" of the page before")
	}
	return after, skip, nil
}

// ListSize is how many people a list has, as of its last sync.
type ListSize struct {
	InList int // members of the marketing list
	InBook int // contacts in the address book
}

// ListSize counts a list's people (list settings id). It reads what is kept of every
// member, so the answer is worth keeping until the next run.
func (a *App) ListSize(ctx context.Context, list string) (ListSize, error) {
	members := crosswalk.NewMembers()
	err := a.store.Members(ctx, list, func(b lockstep.StoredBlob) error { return members.Add(b.Payload) })
	return ListSize{InList: members.InList(), InBook: members.InBook()}, err
}
