// Package control is the HTTP API that steers the twins from outside: counters,
// faults, the clock, what people do on the platform's side, and the lists of what
// was sent and written.
// Tests, benchmarks and people with curl use it; nothing in the product does.
//
// Every call needs the token of the ready file as Authorization: Bearer. Bodies
// are JSON and answers too; an error is {"error":"what is wrong"} with a status
// of 400 or above. Unknown members of a body are errors, so that a misspelled
// name does not pass in silence.
package control

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/history"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

// maxBody bounds a request body, in bytes.
const maxBody = 1 << 20

// Behaviour is what the recipients of a campaign's latest send do. The five
// shares are from 0 to 1, each of the whole audience.
type Behaviour struct {
	Campaign     int64
	Opens        float64
	Clicks       float64
	Bounces      float64
	Unsubscribes float64
	PageViews    float64
}

// Reaction says how many recipients did what.
type Reaction struct {
	Recipients   int `json:"recipients"`
	Opens        int `json:"opens"`
	Clicks       int `json:"clicks"`
	Bounces      int `json:"bounces"`
	Unsubscribes int `json:"unsubscribes"`
	PageViews    int `json:"pageviews"`
}

// Send is a campaign send that the platform accepted.
type Send struct {
	ID           string    `json:"id"`
	Account      int64     `json:"account"`
	Campaign     int64     `json:"campaign"`
	CampaignName string    `json:"campaign_name"`
	Status       string    `json:"status"`
	Accepted     time.Time `json:"accepted"`
	// Due is when it goes out or went out.
	Due time.Time `json:"due"`
	// Recipients yields the mailed addresses.
	Recipients iter.Seq[string] `json:"-"`
}

// Act is what one person does on the platform's side, without any API call.
type Act struct {
	// Email is the person's address.
	Email string
	// Act is unsubscribe, list-unsubscribe, complain, bounce, resubscribe, confirm
	// or preference.
	Act string
	// List is the list that is left, Preference what is changed, OptedIn to what.
	List, Preference int32
	OptedIn          bool
}

// Account is one email account.
type Account struct {
	// ID is what calls name it by, from 1.
	ID int64
	Mailer
}

// Mailer is what the control API needs of an email platform's twin.
type Mailer interface {
	// React lets the audience of a campaign's latest send behave so, at once. It
	// fails when there is no such campaign or it was not sent.
	React(Behaviour) (Reaction, error)
	// Act lets a person act, at once. It fails when the account does not know the
	// person or the platform does not let it do that.
	Act(Act) error
	// Sends yields all accepted sends in the order of acceptance.
	Sends() iter.Seq[Send]
}

// Options are the things that the API steers; all but History, Snapshot
// and Webhooks are required.
type Options struct {
	// Token authorises every call.
	Token string
	// Counters by the name of their twin.
	Counters map[string]*stats.Counter
	Faults   *fault.Set
	Clock    *clock.Clock
	// Accounts are the email accounts, of which calls mean the first unless they
	// name another.
	Accounts []Account
	// History holds what was written; nil when nothing is remembered.
	History *history.Log
	// Snapshot writes the twins' data folder.
	Snapshot func() error
	// Webhooks tells what was posted to the webhooks of the organization.
	Webhooks func() any
}

// snapshot writes the data folder; without one it is refused.
func (h *handler) snapshot(*http.Request) (any, error) {
	if h.opt.Snapshot == nil {
		return nil, &refusal{http.StatusConflict, "the twins were started without a data folder"}
	}
	if err := h.opt.Snapshot(); err != nil {
		return nil, &refusal{http.StatusConflict, err.Error()}
	}
	return struct{}{}, nil
}

// webhooks tells what was posted to the webhooks that are registered.
func (h *handler) webhooks(*http.Request) (any, error) {
	if h.opt.Webhooks == nil {
		return nil, &refusal{http.StatusConflict, "there is no organization here that posts webhooks"}
	}
	return h.opt.Webhooks(), nil
}

type handler struct {
	opt   Options
	token [sha256.Size]byte
}

// New returns the API.
func New(opt Options) http.Handler {
	h := &handler{opt: opt, token: sha256.Sum256([]byte(opt.Token))}
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /stats":        h.stats,
		"POST /stats/reset": h.resetStats,
		"GET /faults":       h.faults,
		"POST /faults":      h.addFault,
		"DELETE /faults":    h.clearFaults,
		"GET /clock":        h.now,
		"POST /clock":       h.advance,
		"POST /recipients":  h.recipients,
		"POST /people":      h.people,
		"POST /snapshot":    h.snapshot,
		"GET /webhooks":     h.webhooks,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := serve(r)
			if err != nil {
				refuse(w, err)
				return
			}
			answer(w, http.StatusOK, v)
		})
	}
	mux.HandleFunc("GET /sends", h.sends)
	mux.HandleFunc("GET /history", h.history)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, &refusal{http.StatusNotFound, "no such call; GET /stats, POST /stats/reset, GET|POST|DELETE /faults, GET|POST /clock, GET /webhooks, POST /recipients, POST /people, POST /snapshot, GET /sends and GET /history exist"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], h.token[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="twins"`)
			refuse(w, &refusal{http.StatusUnauthorized, "the token of the ready file (control.token) is required as Authorization: Bearer"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func bad(format string, args ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if r, ok := errors.AsType[*refusal](err); ok {
		status = r.status
	}
	answer(w, status, map[string]string{"error": err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// read decodes the body strictly.
func read(r *http.Request, into any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		// curl -d sends the form type without being asked; a page in a browser
		// cannot reach this API at all, as it has no token.
		switch mt, _, err := mime.ParseMediaType(ct); {
		case err != nil || mt != "application/json" && mt != "application/x-www-form-urlencoded":
			return &refusal{http.StatusUnsupportedMediaType, "the body must be application/json"}
		}
	}
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var tooLong *http.MaxBytesError
		var typed *json.UnmarshalTypeError
		switch {
		case errors.As(err, &tooLong):
			return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", maxBody)}
		case errors.As(err, &typed) && typed.Field != "":
			return bad("%s cannot be a %s", typed.Field, typed.Value)
		case err == io.EOF:
			return bad("the body is empty; a JSON object is expected")
		}
		return bad("the body is not what is expected: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return bad("something follows the JSON object")
	}
	return nil
}

func (h *handler) stats(*http.Request) (any, error) {
	out := make(map[string]stats.Counts, len(h.opt.Counters))
	for name, c := range h.opt.Counters {
		out[name] = c.Snapshot()
	}
	return out, nil
}

func (h *handler) resetStats(r *http.Request) (any, error) {
	for _, c := range h.opt.Counters {
		c.Reset()
	}
	return h.stats(r)
}

func (h *handler) faults(*http.Request) (any, error) {
	return map[string]any{"faults": h.opt.Faults.States()}, nil
}

func (h *handler) addFault(r *http.Request) (any, error) {
	var f fault.Fault
	if err := read(r, &f); err != nil {
		return nil, err
	}
	if err := h.opt.Faults.Add(f); err != nil {
		return nil, bad("%s", err)
	}
	return h.faults(r)
}

func (h *handler) clearFaults(r *http.Request) (any, error) {
	h.opt.Faults.Clear()
	return h.faults(r)
}

func (h *handler) now(*http.Request) (any, error) {
	return map[string]time.Time{"now": h.opt.Clock.Now()}, nil
}

// maxAdvance keeps the twins' time within what the wire formats can carry.
const maxAdvance = 100 * 365 * 24 * time.Hour

func (h *handler) advance(r *http.Request) (any, error) {
	var body struct {
		Advance string `json:"advance"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(body.Advance)
	if err != nil {
		return nil, bad("advance is %q; a duration such as \"24h\" or \"-90s\"", body.Advance)
	}
	if d > maxAdvance || d < -maxAdvance {
		return nil, bad("advance is %v; at most %v", d, maxAdvance)
	}
	return map[string]time.Time{"now": h.opt.Clock.Advance(d)}, nil
}

func (h *handler) recipients(r *http.Request) (any, error) {
	var body struct {
		Account      int64       `json:"account"`
		Campaign     json.Number `json:"campaign"`
		Opens        float64     `json:"opens"`
		Clicks       float64     `json:"clicks"`
		Bounces      float64     `json:"bounces"`
		Unsubscribes float64     `json:"unsubscribes"`
		PageViews    float64     `json:"pageviews"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	campaign, err := body.Campaign.Int64()
	if err != nil {
		return nil, bad("campaign is %q; the platform's number of a campaign", body.Campaign)
	}
	for _, s := range []struct {
		name  string
		value float64
	}{{"opens", body.Opens}, {"clicks", body.Clicks}, {"bounces", body.Bounces}, {"unsubscribes", body.Unsubscribes}, {"pageviews", body.PageViews}} {
		if !(s.value >= 0 && s.value <= 1) {
			return nil, bad("%s is %v; a share from 0 to 1", s.name, s.value)
		}
	}
	account, err := h.account(body.Account)
	if err != nil {
		return nil, err
	}
	reaction, err := account.React(Behaviour{
		Campaign: campaign, Opens: body.Opens, Clicks: body.Clicks, Bounces: body.Bounces,
		Unsubscribes: body.Unsubscribes, PageViews: body.PageViews,
	})
	if err != nil {
		return nil, &refusal{http.StatusConflict, fmt.Sprintf("campaign %d: %s", campaign, err)}
	}
	return reaction, nil
}

// account finds the email account of a call; 0 is the first.
func (h *handler) account(id int64) (Account, error) {
	for _, a := range h.opt.Accounts {
		if id == 0 || a.ID == id {
			return a, nil
		}
	}
	return Account{}, bad("account is %d; accounts 1 to %d exist", id, len(h.opt.Accounts))
}

// people lets one person act.
func (h *handler) people(r *http.Request) (any, error) {
	var body struct {
		Account    int64  `json:"account"`
		Email      string `json:"email"`
		Act        string `json:"act"`
		List       int32  `json:"list"`
		Preference int32  `json:"preference"`
		OptedIn    *bool  `json:"opted_in"`
	}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	switch {
	case body.Email == "" || body.Act == "":
		return nil, bad("email and act are needed")
	case (body.Act == "list-unsubscribe") != (body.List != 0):
		return nil, bad("list is needed with the act list-unsubscribe and with no other")
	case (body.Act == "preference") != (body.Preference != 0 && body.OptedIn != nil):
		return nil, bad("preference and opted_in are needed with the act preference and with no other")
	}
	account, err := h.account(body.Account)
	if err != nil {
		return nil, err
	}
	act := Act{Email: body.Email, Act: body.Act, List: body.List, Preference: body.Preference}
	if body.OptedIn != nil {
		act.OptedIn = *body.OptedIn
	}
	if err := account.Act(act); err != nil {
		return nil, &refusal{http.StatusConflict, err.Error()}
	}
	return struct{}{}, nil
}

// sends streams {"sends":[{…,"recipients":["…"]}]}: an audience may be large.
func (h *handler) sends(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// A failed write makes every later one fail too: the loop looks at one of them.
	out := bufio.NewWriterSize(w, 64<<10)
	defer func() { _ = out.Flush() }()
	_, _ = out.WriteString(`{"sends":[`)
	first := true
	for s := range h.allSends {
		if !first {
			_ = out.WriteByte(',')
		}
		first = false
		head, err := json.Marshal(s)
		if err != nil {
			panic(http.ErrAbortHandler) // an answer cut short must not look complete
		}
		_, _ = out.Write(head[:len(head)-1])
		_, _ = out.WriteString(`,"recipients":[`)
		n := 0
		for address := range s.Recipients {
			if n > 0 {
				_ = out.WriteByte(',')
			}
			text, _ := json.Marshal(address)
			if _, err := out.Write(text); err != nil {
				return
			}
			n++
		}
		fmt.Fprintf(out, `],"recipient_count":%d}`, n)
	}
	_, _ = out.WriteString("]}\n")
}

// allSends yields the sends of one account after those of another.
func (h *handler) allSends(yield func(Send) bool) {
	for _, a := range h.opt.Accounts {
		for s := range a.Sends() {
			if !yield(s) {
				return
			}
		}
	}
}

// history streams {"first":1,"last":9,"entries":[…]}: the entries behind the number
// after, at most limit of them. first and last are the oldest and the newest entry
// kept when the answer begins; entries that were dropped before they were read show
// as first > after+1.
func (h *handler) history(w http.ResponseWriter, r *http.Request) {
	if h.opt.History == nil {
		refuse(w, &refusal{http.StatusConflict, "the twins were started without a history"})
		return
	}
	after, err := number(r.URL.Query(), "after", 0)
	if err != nil {
		refuse(w, err)
		return
	}
	limit, err := number(r.URL.Query(), "limit", maxEntries)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, 64<<10)
	defer func() { _ = out.Flush() }()
	first, last := h.opt.History.Bounds()
	fmt.Fprintf(out, `{"first":%d,"last":%d,"entries":[`, first, last)
	n := int64(0)
	for e := range h.opt.History.After(after) {
		if n == limit || e.Seq > last {
			break
		}
		if n > 0 {
			_ = out.WriteByte(',')
		}
		text, err := json.Marshal(e)
		if err != nil {
			panic(http.ErrAbortHandler) // an answer cut short must not look complete
		}
		if _, err := out.Write(text); err != nil {
			return
		}
		n++
	}
	_, _ = out.WriteString("]}\n")
}

// maxEntries is how many entries one answer holds unless told otherwise.
const maxEntries = 100_000

// number reads a whole number of at least 0 from a query.
func number(q url.Values, name string, byDefault int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, bad("%s is %.40q; a whole number from 0", name, text)
	}
	return n, nil
}
