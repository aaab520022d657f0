package twin

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"

	"github.com/lockstep-sync/lockstep/internal/twin/control"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

// MaxAccounts bounds the email accounts of one start.
const MaxAccounts = 100

// apiUser is the API user of one email account.
type apiUser struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

func newAPIUser() apiUser {
	return apiUser{"apiuser-" + hex.EncodeToString(random(6)) + "@apiconnector.com", rand.Text()}
}

// openAccounts makes the email accounts, the first one for the user that was
// always there. An account that a data folder holds is served whatever the number
// asked for, as everything that is found there.
func (t *Twins) openAccounts(opt Options, emailURL string) {
	id := &t.identity
	for len(id.MoreAccounts)+1 < opt.DotdigitalAccounts {
		id.MoreAccounts = append(id.MoreAccounts, newAPIUser())
	}
	users := append([]apiUser{{id.APIUser, id.APIPassword}}, id.MoreAccounts...)
	for k, u := range users {
		o := dotdigital.Options{
			Clock: t.Clock, Faults: t.Faults, Stats: t.Counters[fault.Dotdigital], Seed: opt.Seed + uint64(k)<<32, AccountID: int32(k + 1),
			Users: []dotdigital.APIUser{{Name: u.Name, Password: u.Password}}, RateLimit: opt.RateLimit, ImportTime: opt.ImportTime,
		}
		if k > 0 {
			o.AccountName = "Demo " + strconv.Itoa(k+1)
		}
		if t.History != nil {
			o.History = t.recordContacts(o.AccountID)
		}
		a := dotdigital.New(o)
		a.SetEndpoint(emailURL)
		t.Accounts = append(t.Accounts, a)
		t.ready.DotdigitalAccounts = append(t.ready.DotdigitalAccounts, DotdigitalAccount{
			URL: emailURL, User: u.Name, Password: u.Password, AccountID: a.AccountID(),
		})
	}
	t.Dotdigital = t.Accounts[0]
}

// accountDir is the folder of an account's snapshot in a data folder.
func (t *Twins) accountDir(k int) string {
	name := fault.Dotdigital
	if k > 0 {
		name += "-" + strconv.Itoa(k+1)
	}
	return filepath.Join(t.dataDir, name)
}

// restoreAccounts fills the email accounts from the data folder. One that was not
// there before is filled anew.
func (t *Twins) restoreAccounts(made population.Options) error {
	for k, a := range t.Accounts {
		err := a.LoadSnapshot(t.accountDir(k))
		if k > 0 && errors.Is(err, os.ErrNotExist) {
			err = population.GeneratePlatform(made, k, newEmailAccount(a))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// steered are the email accounts as the control API sees them.
func (t *Twins) steered() []control.Account {
	out := make([]control.Account, len(t.Accounts))
	for k, a := range t.Accounts {
		out[k] = control.Account{ID: int64(a.AccountID()), Mailer: mailer{a}}
	}
	return out
}

func checkAccounts(n int) (int, error) {
	if n < 0 || n > MaxAccounts {
		return 0, fmt.Errorf("%d email accounts are asked for; 1 to %d are possible", n, MaxAccounts)
	}
	return cmp.Or(n, 1), nil
}

// mailer shows an email account to the control API.
type mailer struct{ server *dotdigital.Server }

func (m mailer) React(b control.Behaviour) (control.Reaction, error) {
	done, err := m.server.Recipients(int32(b.Campaign), dotdigital.Shares{
		Opens: b.Opens, Clicks: b.Clicks, Bounces: b.Bounces, Unsubscribes: b.Unsubscribes, PageViews: b.PageViews,
	})
	return control.Reaction{
		Recipients: done.Audience, Opens: done.Opened, Clicks: done.Clicked, Bounces: done.Bounced,
		Unsubscribes: done.Unsubscribed, PageViews: done.Viewed,
	}, err
}

func (m mailer) Act(a control.Act) error {
	return m.server.Act(dotdigital.Act{Email: a.Email, Kind: dotdigital.ActKind(a.Act), List: a.List, Preference: a.Preference, OptedIn: a.OptedIn})
}

func (m mailer) Sends() iter.Seq[control.Send] {
	return func(yield func(control.Send) bool) {
		for _, s := range m.server.Sends() {
			recipients := func(yield func(string) bool) {
				for _, r := range s.Recipients {
					if !yield(r.Email) {
						return
					}
				}
			}
			if !yield(control.Send{
				ID: s.ID, Account: int64(m.server.AccountID()), Campaign: int64(s.Campaign), CampaignName: s.CampaignName, Status: s.Status,
				Accepted: s.Accepted, Due: s.Due, Recipients: recipients,
			}) {
				return
			}
		}
	}
}
