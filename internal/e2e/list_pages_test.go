package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

// listPages notes which pages of dynamic lists' evaluations, and of all ids of a table,
// are asked for, and answers for the CRM where it is told to.
type listPages struct {
	mu    sync.Mutex
	asked []string // "filter page" or "ids page", in order
	// answer returns the status of an answer in the place of the CRM's; 0 = the CRM answers.
	answer func(page string, times int) int
	times  map[string]int
	body   string // of an answer in the place of the CRM's with status 200
}

var pageOfQuery = regexp.MustCompile(`^<fetch [^>]*page="(\d+)".*?(?:<condition attribute="([a-z0-9_]+)"|</fetch>$)`)

func (p *listPages) wrap(twinName string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := pageOfQuery.FindStringSubmatch(r.URL.Query().Get("fetchXml"))
		if twinName != "dataverse" || m == nil {
			next.ServeHTTP(w, r)
			return
		}
		page := cmp.Or(m[2], "ids") + " " + m[1]
		p.mu.Lock()
		p.asked = append(p.asked, page)
		p.times[page]++
		status := 0
		if p.answer != nil {
			status = p.answer(page, p.times[page])
		}
		body := p.body
		p.mu.Unlock()
		switch status {
		case 0:
		case http.StatusOK:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body)
			return
		default:
			http.Error(w, "", status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// storm lets answer speak for the CRM and forgets what was asked before.
func (p *listPages) storm(answer func(page string, times int) int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.times, p.answer = nil, map[string]int{}, answer
}

func (p *listPages) asks() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// An evaluation that is interrupted goes on at the page where it was, however often; the
// lists that were evaluated before it are not evaluated again, and nobody leaves a book
// before all pages were read.
func TestEvaluationGoesOnAtItsPage(t *testing.T) {
	t.Parallel()
	const (
		pages, rows = 6, 10
		attempts    = 5 // of one page until a slice gives up
	)
	h := newHaste()
	p := &listPages{times: map[string]int{}}
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep, PageRows: rows}}
	o.twins.Clock, o.twins.Wrap = h.Clock, p.wrap
	w := newStageOf(t, o)
	all := w.list("All of Oslo", "contact", lockstep.ActionIgnore, `<condition attribute="address1_city" operator="eq" value="Oslo"/>`)
	bakers := w.list("Bakers", "contact", lockstep.ActionIgnore, `<condition attribute="jobtitle" operator="eq" value="Baker"/>`)
	var ids []string
	for i := range pages*rows - 3 {
		ids = append(ids, w.cast("contact", fmt.Sprintf("p%02d@stage.example", i), cols{"address1_city": "Oslo", "jobtitle": "Baker"}))
	}
	gone := func(n int) { // who is no member any more
		w.editRecord("contact", ids[n], cols{"address1_city": "Bergen", "jobtitle": "Cook"})
		ids = slices.Delete(ids, n, n+1)
	}
	w.sync()
	w.quiet()
	if n := len(w.in(all)); n != len(ids) {
		t.Fatalf("%d of %d are in the book", n, len(ids))
	}
	city := func(from, to int) []string { return pagesOf("address1_city", from, to) }
	job := func(from, to int) []string { return pagesOf("jobtitle", from, to) }
	refuse := func(page string, times int, statuses ...int) func(string, int) int {
		return func(asked string, n int) int {
			if asked == page && n <= times {
				return statuses[n%len(statuses)]
			}
			return 0
		}
	}
	for _, tc := range []struct {
		name   string
		before func() // the run
		answer func(page string, times int) int
		meet   func() // when the run is interrupted
		want   [][]string
	}{
		{
			name: "the CRM is away for long", answer: refuse("address1_city 4", 3*attempts+2, 503, 504),
			want: [][]string{city(1, 3), slices.Repeat(city(4, 4), 3*attempts+3), city(5, 6), job(1, 6)},
		},
		{
			name: "at the second list", answer: refuse("jobtitle 6", attempts, 503),
			want: [][]string{city(1, 6), job(1, 5), slices.Repeat(job(6, 6), attempts+1)},
		},
		{
			name: "somebody left before", answer: refuse("address1_city 4", attempts, 503), before: func() { gone(50); h.Advance(time.Hour) },
			want: [][]string{city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(5, 6), job(1, 6)},
		},
		{
			name: "somebody who was read leaves, and somebody comes", answer: refuse("address1_city 4", attempts, 503), meet: func() {
				gone(7)
				ids = append(ids, w.cast("contact", "late@stage.example", cols{"address1_city": "Oslo", "jobtitle": "Baker"}))
			},
			// What the feed then tells of is younger than both answers.
			want: [][]string{city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(5, 6), job(1, 6), city(1, 6), job(1, 6)},
		},
		{
			name: "somebody is deleted, and the second reading is interrupted too", meet: func() {
				w.crm("DELETE", "contacts("+ids[3]+")", nil, nil)
				ids = slices.Delete(ids, 3, 4)
			},
			answer: func(asked string, n int) int {
				if asked == "address1_city 4" && n != attempts+1 && n <= 2*attempts+1 {
					return 503
				}
				return 0
			},
			want: [][]string{
				city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(5, 6), job(1, 6),
				city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(5, 6), job(1, 6),
			},
		},
		{
			name: "somebody leaves while the second reading is interrupted", meet: func() { gone(4) },
			answer: func(asked string, n int) int {
				if asked != "address1_city 4" || n == attempts+1 || n > 2*attempts+1 {
					return 0
				}
				if n == attempts+2 {
					gone(5)
				}
				return 503
			},
			want: [][]string{
				city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(5, 6), job(1, 6),
				city(1, 3), slices.Repeat(city(4, 4), attempts), city(1, 6), job(1, 6),
			},
		},
		{
			name: "the position is taken no more",
			answer: func(asked string, n int) int {
				switch {
				case asked == "address1_city 4" && n <= attempts:
					return 503
				case asked == "address1_city 4" && n == attempts+1:
					return 400
				}
				return 0
			},
			want: [][]string{city(1, 3), slices.Repeat(city(4, 4), attempts+1), city(1, 6), job(1, 6)},
		},
		{
			name: "the query is another one by then", answer: refuse("address1_city 4", attempts, 503), meet: func() {
				w.crm("PATCH", "lists("+all.CRMID.String()+")", cols{"query": `<fetch><entity name="contact"><filter><condition attribute="address1_city" operator="eq" value="Oslo"/><condition attribute="lastname" operator="ne" value="p20"/></filter></entity></fetch>`}, nil)
			},
			want: [][]string{city(1, 3), slices.Repeat(city(4, 4), attempts), city(1, 6), job(1, 6)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.t = t
			h.Advance(25 * time.Hour) // the lists are evaluated once a day whatever happens
			if tc.before != nil {
				tc.before()
			}
			before, met := w.in(all), false
			p.storm(func(page string, n int) int {
				status := tc.answer(page, n)
				if status != 0 && !met {
					met = true
					if tc.meet != nil {
						tc.meet()
					}
				}
				if diff := gocmp.Diff(before, w.in(all)); status != 0 && diff != "" {
					t.Errorf("while pages are missing (+):\n%s", diff)
				}
				return status
			})
			run := w.sync()
			asked := p.asks()
			p.storm(nil)
			if run.Counts.Findings != 0 {
				t.Errorf("findings: %v", w.findings(run))
			}
			if diff := gocmp.Diff(slices.Concat(tc.want...), asked); diff != "" {
				t.Errorf("pages asked for (+):\n%s", diff)
			}
			want := len(ids)
			if n := len(w.in(bakers)); n != want {
				t.Errorf("%d are in the book of bakers, want %d", n, want)
			}
			if strings.Contains(tc.name, "query") {
				want--
			}
			if n := len(w.in(all)); n != want {
				t.Errorf("%d are in the book, want %d", n, want)
			}
			w.quiet()
		})
	}
}

func pagesOf(filter string, from, to int) (out []string) {
	for n := from; n <= to; n++ {
		out = append(out, fmt.Sprint(filter, " ", n))
	}
	return out
}
