package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// demoResult is what --json prints. Credentials are in the ready file alone.
type demoResult struct {
	URL       string           `json:"url"`
	ReadyFile string           `json:"ready_file"`
	Run       lockstep.Run     `json:"run"`
	Lists     int              `json:"lists"`
	Findings  map[string]int64 `json:"findings"` // by code
	Seconds   float64          `json:"seconds"`  // from the command's start
}

// summary prints what happened and where to look, and returns the number of findings.
func (d *demo) summary(ctx context.Context, run lockstep.Run, access lockstepReady) (int64, error) {
	lists, err := d.app.Lists(ctx, d.account.ID)
	if err != nil {
		return 0, err
	}
	active := 0
	for _, l := range lists {
		if l.Activated {
			active++
		}
	}
	codes, total, err := findingCodes(ctx, run.ID, func(ctx context.Context, run, after string) ([]lockstep.Finding, string, error) {
		page, err := d.app.Findings(ctx, run, after, findingsPage)
		if err != nil || len(page) < findingsPage {
			return page, "", err
		}
		return page, page[len(page)-1].ID, nil
	})
	if err != nil {
		return 0, err
	}
	if d.env.json {
		return total, d.env.printJSON(demoResult{URL: access.URL, ReadyFile: d.ready, Run: run, Lists: active, Findings: codes, Seconds: time.Since(d.began).Seconds()})
	}
	c := run.Counts
	p := d.env.printf
	which := "first sync"
	if d.marked {
		which = "sync"
	}
	p("\nThe %s of %d marketing lists took %s.\n\n", which, active, run.Ended.Sub(run.Started).Round(100*time.Millisecond))
	p("  People looked at     %10s\n", thousands(c.Read))
	p("  Contacts created     %10s\n", thousands(c.ContactsCreated))
	p("  Contacts changed     %10s\n", thousands(c.ContactsUpdated))
	p("  CRM records changed  %10s\n", thousands(c.RecordsUpdated+c.RecordsCreated))
	p("  Put on address books %10s\n", thousands(c.BookAdds))
	p("  API calls            %10s   Dynamics %s, Dotdigital %s, waiting for imports %s\n", thousands(run.Calls.CRM+run.Calls.Platform+run.Calls.Polls),
		thousands(run.Calls.CRM), thousands(run.Calls.Platform), thousands(run.Calls.Polls))
	p("  Findings             %10s\n", thousands(total))
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		p("    %-18s %10s\n", code, thousands(codes[code]))
	}
	if d.once {
		return total, nil
	}
	p("\nLook at it\n\n")
	p("  Lockstep    %s   user %s   password %s\n", access.URL, access.User, access.Password)
	p("  Dynamics    %s\n  Dotdigital  %s\n", d.twinsReady.Dataverse.API, d.twinsReady.Dotdigital.URL)
	p("  All addresses and credentials: %s\n", d.ready)
	return total, d.suggest(ctx, run)
}

// suggest prints five things to try, on contacts that the sync has written.
func (d *demo) suggest(ctx context.Context, run lockstep.Run) error {
	some, err := d.some(ctx, run, 2)
	if err != nil || len(some) < 2 {
		return err
	}
	ref, contact, email := some[0].Ref, some[0].Contact, some[1].Email
	v, m := d.twinsReady.Dataverse, d.twinsReady.Dotdigital
	p := d.env.printf
	sync := "lockstep sync %s --type marketing-lists --ready-file " + quote(d.ready) + "\n"
	p("\nTry next\n\n  # sign in to Dynamics\n")
	p("  TOKEN=$(curl -s %s -d grant_type=client_credentials -d client_id=%s \\\n    --data-urlencode client_secret=%s --data-urlencode scope=%s | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n",
		quote(v.TokenURL), v.ClientID, quote(v.ClientSecret), quote(v.Scope))
	patch := func(body string) {
		p("  curl -sS -o /dev/null -w '%%{http_code}\\n' -X PATCH -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '%s' \\\n    '%scontacts(%s)'\n", body, v.API, ref.ID)
	}
	p("\n  # 1. a job title changes in Dynamics; see the change before it is written, then write it\n")
	patch(`{"jobtitle":"Head of Balloons"}`)
	p("  "+sync, "preview")
	p("  "+sync, "run")
	p("\n  # 2. the same person changes it in the email account; it comes back to Dynamics\n")
	p("  curl -sS -o /dev/null -w '%%{http_code}\\n' -X PATCH -u %s -H 'Content-Type: application/json' -d '{\"dataFields\":{\"JOBTITLE\":\"Balloonist\"}}' \\\n    '%s/contacts/v3/contactId/%s'\n",
		quote(m.User+":"+m.Password), m.URL, contact)
	p("  "+sync, "run")
	p("\n  # 3. the person opts out in Dynamics and leaves the address books\n")
	patch(`{"donotbulkemail":true}`)
	p("  "+sync, "run")
	p("\n  # 4. somebody unsubscribes from everything in the email account: every record with the address is closed to bulk email\n")
	p("  curl -sS -o /dev/null -w '%%{http_code}\\n' -u %s -H 'Content-Type: application/json' -d '{\"email\":\"%s\"}' '%s/v2/contacts/unsubscribe'\n", quote(m.User+":"+m.Password), email, m.URL)
	p("  lockstep sync run --type suppressions --ready-file %s\n", quote(d.ready))
	p("  lockstep consent show %s --ready-file %s\n", email, quote(d.ready))
	p("\n  # 5. so far nothing ran that you did not start; from now on the syncs run by themselves: edit somebody and look a few seconds later\n")
	p("  lockstep accounts start %s --ready-file %s\n", quote(d.account.Name), quote(d.ready))
	p("  lockstep schedules --ready-file %s\n", quote(d.ready))
	p("\n")
	return nil
}

// some returns changes by which the run wrote n different CRM contacts to the
// platform; fewer when there are not as many.
func (d *demo) some(ctx context.Context, run lockstep.Run, n int) ([]app.ShownChange, error) {
	var some []app.ShownChange
	for after := int64(0); ; {
		changes, next, err := d.app.Changes(ctx, run.ID, after, 100)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			if c.Kind != lockstep.WriteContact || c.State != lockstep.Acknowledged || c.Ref.Table != "contact" || c.Ref.ID.IsZero() || c.Contact == "" || c.Email == "" {
				continue
			}
			if some = append(some, c); len(some) == n {
				return some, nil
			}
		}
		if next == 0 {
			return some, nil
		}
		after = next
	}
}

// quote makes one shell word of s.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@~") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

const findingsPage = 500

// findingCodes counts a run's findings by code. page returns a page and the cursor
// of the next one, empty after the last.
func findingCodes(ctx context.Context, run string, page func(ctx context.Context, run, after string) ([]lockstep.Finding, string, error)) (map[string]int64, int64, error) {
	codes, total := map[string]int64{}, int64(0)
	for after := ""; ; {
		findings, next, err := page(ctx, run, after)
		if err != nil {
			return nil, 0, fmt.Errorf("read the findings: %w", err)
		}
		for _, f := range findings {
			codes[f.Code]++
			total++
		}
		if next == "" {
			return codes, total, nil
		}
		after = next
	}
}
