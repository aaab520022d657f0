package app

import (
	"context"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// How far back Explain looks for what was last written.
const (
	explainRuns   = 20
	explainWrites = 20
)

// Explain says who an address is on each side, where it belongs, and what was last
// written. It makes no call to either side.
func (a *App) Explain(ctx context.Context, account, email string) (lockstep.Explanation, error) {
	email = lockstep.NormalizeEmail(email)
	out := lockstep.Explanation{
		Email: email, Account: account, Links: []lockstep.ExplainedLink{}, LastWrites: []lockstep.ExplainedWrite{},
		Findings: []lockstep.Finding{}, Conflicts: []lockstep.Conflict{},
	}
	if problem := lockstep.CheckEmail(email); problem != "" {
		return out, invalid("email", problem, "give one whole address")
	}
	if _, err := a.store.Account(ctx, account); err != nil {
		return out, err
	}
	links := map[lockstep.Ref]crosswalk.Entry{}
	names := map[lockstep.Ref][]string{}
	err := a.store.Links(ctx, account, 0, func(b lockstep.StoredBlob) error {
		labels, err := crosswalk.Labels(b.Payload)
		if err != nil {
			return err
		}
		return crosswalk.Decode(b.Payload, func(_, _ int, e crosswalk.Entry) error {
			if e.Email == email && !e.Closed {
				links[e.Ref], names[e.Ref] = e, labels
			} else {
				delete(links, e.Ref)
			}
			return nil
		})
	})
	if err != nil {
		return out, err
	}
	refs, contacts := map[lockstep.Ref]bool{}, map[lockstep.ContactID]bool{}
	for ref, e := range links {
		x := lockstep.ExplainedLink{
			Contact: e.Contact, Speaks: e.Master, Standing: e.Standing.String(), OptIn: e.OptIn.String(), Agreed: map[string]lockstep.Value{},
			Memberships: []lockstep.ExplainedMembership{},
		}
		if ref.Table != "" {
			r := ref
			x.Record = &r
			refs[ref] = true
		}
		contacts[e.Contact] = true
		for i, n := range names[ref] {
			if i < len(e.Base) && !e.Base[i].IsAbsent() {
				x.Agreed[n] = e.Base[i]
			}
		}
		out.Links = append(out.Links, x)
	}
	slices.SortFunc(out.Links, func(a, b lockstep.ExplainedLink) int {
		switch {
		case a.Record == nil:
			return 1
		case b.Record == nil:
			return -1
		}
		return slices.Compare(a.Record.ID[:], b.Record.ID[:])
	})
	if err := a.explainMemberships(ctx, account, &out); err != nil {
		return out, err
	}
	return out, a.explainHistory(ctx, account, &out, refs, contacts)
}

func (a *App) explainMemberships(ctx context.Context, account string, out *lockstep.Explanation) error {
	lists, err := a.store.Lists(ctx, account)
	if err != nil {
		return err
	}
	for _, l := range lists {
		if !l.Activated {
			continue
		}
		last := map[int]crosswalk.Member{}
		err := a.store.Members(ctx, l.ID, func(b lockstep.StoredBlob) error {
			return crosswalk.DecodeMembers(b.Payload, func(m crosswalk.Member) error {
				for i, x := range out.Links {
					if x.Record != nil && x.Record.ID == m.Record || m.Record.IsZero() && m.Contact == x.Contact {
						last[i] = m
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
		for i, m := range last {
			if m.InList || m.InBook {
				out.Links[i].Memberships = append(out.Links[i].Memberships, lockstep.ExplainedMembership{
					List: l.ID, Name: l.Name,
					InList: m.InList, InAddressBook: m.InBook, Excluded: m.Excluded, Unsubscribed: m.Unsubscribed,
				})
			}
		}
	}
	return nil
}

func (a *App) explainHistory(ctx context.Context, account string, out *lockstep.Explanation, refs map[lockstep.Ref]bool, contacts map[lockstep.ContactID]bool) error {
	about := func(ref lockstep.Ref, contact lockstep.ContactID) bool {
		return ref.Table != "" && refs[ref] || contact != "" && contacts[contact]
	}
	runs, err := a.store.Runs(ctx, RunFilter{Account: account, Limit: explainRuns})
	if err != nil {
		return err
	}
	for _, run := range runs {
		var writes []lockstep.ExplainedWrite
		for after := int64(0); len(out.LastWrites) < explainWrites; {
			batches, err := a.store.Batches(ctx, run.ID, after, 4)
			if err != nil {
				return err
			}
			if len(batches) == 0 {
				break
			}
			for _, b := range batches {
				after = b.ID
				err := journal.Decode(b.Payload, func(c lockstep.Change) error {
					if about(c.Ref, c.Contact) {
						writes = append(writes, lockstep.ExplainedWrite{Run: run.ID, At: b.Planned, Change: c})
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
		slices.Reverse(writes)
		out.LastWrites = append(out.LastWrites, writes...)
		for after := ""; ; {
			found, err := a.store.Findings(ctx, run.ID, after, 500)
			if err != nil {
				return err
			}
			for _, f := range found {
				after = f.ID
				if about(lockstep.Ref{Table: f.Table, ID: f.Record}, f.Contact) {
					out.Findings = append(out.Findings, f)
				}
			}
			if len(found) < 500 {
				break
			}
		}
	}
	out.LastWrites = out.LastWrites[:min(len(out.LastWrites), explainWrites)]
	conflicts, err := a.store.Conflicts(ctx, ConflictFilter{Account: account, Limit: 1000})
	if err != nil {
		return err
	}
	for _, c := range conflicts {
		if about(c.Ref, c.Contact) {
			out.Conflicts = append(out.Conflicts, c)
		}
	}
	return nil
}
