// Command floor is the least that any program has to do to carry contacts from
// Dynamics to Dotdigital: it reads pages of 5,000 with a column scanner, writes ten
// fields in imports of 10,000, and follows the delta link. It keeps no state, knows
// no lists, compares nothing, checks no consent and writes no audit. The benchmark
// runs it beside Lockstep to say how far from the least Lockstep is.
//
// It prints one JSON object: the time of the full load, and the time of following
// the link, with as many changed rows as the flag -change makes.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/bench/work"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

const (
	importRows = 10_000
	writers    = 2
)

// access is the part of the twins' ready file that is needed.
type access struct {
	Dataverse struct {
		URL          string `json:"url"`
		API          string `json:"api"`
		TokenURL     string `json:"token_url"`
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
		Scope        string `json:"scope"`
	} `json:"dataverse"`
	Dotdigital struct {
		URL      string `json:"url"`
		User     string `json:"user"`
		Password string `json:"password"`
	} `json:"dotdigital"`
}

// report is what is printed, times in seconds.
type report struct {
	Contacts int     `json:"contacts"`
	Load     float64 `json:"load"`
	Delta    float64 `json:"delta"`
	Changed  int     `json:"changed"`
}

func main() {
	ready := flag.String("ready", "", "the twins' ready file")
	change := flag.Bool("change", false, "wait for a line on standard input, then follow the delta link")
	flag.Parse()
	if err := run(context.Background(), *ready, *change); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, ready string, follow bool) error {
	began := time.Now()
	b, err := os.ReadFile(ready)
	if err != nil {
		return err
	}
	f := &floor{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}}}
	if err := json.Unmarshal(b, &f.access); err != nil {
		return err
	}
	if err := f.signIn(ctx); err != nil {
		return err
	}
	names := []string{work.Email}
	for _, field := range work.Fields {
		names = append(names, field.Column)
	}
	f.cols = pagescan.NewColumns(names...)
	n, delta, err := f.load(ctx, f.access.Dataverse.API+"contacts?$select="+strings.Join(names, ","))
	if err != nil {
		return err
	}
	out := report{Contacts: n, Load: time.Since(began).Seconds()}
	if follow {
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			return err
		}
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return err
		}
		began = time.Now()
		if out.Changed, _, err = f.load(ctx, delta); err != nil {
			return err
		}
		out.Delta = time.Since(began).Seconds()
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

type floor struct {
	access access
	http   *http.Client
	bearer string
	cols   *pagescan.Columns
}

func (f *floor) signIn(ctx context.Context) error {
	d := f.access.Dataverse
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {d.ClientID}, "client_secret": {d.ClientSecret}, "scope": {d.Scope}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := f.do(req, 0)
	if err != nil {
		return err
	}
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &token); err != nil {
		return err
	}
	f.bearer = "Bearer " + token.AccessToken
	return nil
}

func (f *floor) do(req *http.Request, hint int) (string, error) {
	resp, err := f.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var b strings.Builder
	b.Grow(max(hint, int(resp.ContentLength)))
	if _, err := io.Copy(&b, resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode >= 300 {
		return "", fmt.Errorf("%s %s: %s: %.300s", req.Method, req.URL.Path, resp.Status, b.String())
	}
	return b.String(), nil
}

type answer struct {
	text string
	err  error
}

func (f *floor) page(ctx context.Context, link string, hint int) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
		if err != nil {
			ch <- answer{err: err}
			return
		}
		req.Header.Set("Authorization", f.bearer)
		req.Header.Set("Accept", "application/json")
		req.Header.Set("OData-Version", "4.0")
		req.Header.Set("OData-MaxVersion", "4.0")
		req.Header.Set("Prefer", fmt.Sprintf("odata.track-changes,odata.maxpagesize=%d", work.PageRows))
		text, err := f.do(req, hint)
		ch <- answer{text, err}
	}()
	return ch
}

// load reads from link to the end and writes every contact; it returns how many
// and the delta link.
func (f *floor) load(ctx context.Context, link string) (n int, delta string, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	bodies := make(chan []byte, 1)
	spare := make(chan []byte, writers+2)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	for range writers {
		wg.Go(func() {
			for b := range bodies {
				if err := f.write(ctx, b); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					stop()
				}
				select {
				case spare <- b[:0]:
				default:
				}
			}
		})
	}
	const bodySize = importRows * 360
	rows := encoder{buf: make([]byte, 0, bodySize)}
	flush := func() {
		if rows.n > 0 {
			bodies <- append(rows.buf, "]}"...)
			rows = encoder{}
			select {
			case rows.buf = <-spare:
			default:
				rows.buf = make([]byte, 0, bodySize)
			}
		}
	}
	cells := make([]pagescan.Cell, f.cols.Len())
	for pending := f.page(ctx, link, 0); pending != nil; {
		a := <-pending
		if a.err != nil {
			err = a.err
			break
		}
		hint := len(a.text) + len(a.text)/16
		pending = nil
		if next, ok := pagescan.Peek(a.text, "@odata.nextLink"); ok {
			pending = f.page(ctx, next, hint)
		}
		p := pagescan.New(a.text, "value", f.cols)
		for {
			ok, perr := p.Next(cells)
			if perr != nil || !ok {
				err = perr
				break
			}
			if cells[0].Kind() == pagescan.String {
				rows.add(cells)
				n++
			}
			if rows.n == importRows {
				flush()
			}
		}
		if err != nil {
			break
		}
		delta = p.Member("@odata.deltaLink").Text()
	}
	flush()
	close(bodies)
	wg.Wait()
	return n, delta, errors.Join(failed, err)
}

// encoder makes the body of an import.
type encoder struct {
	buf []byte
	n   int
}

func (e *encoder) add(cells []pagescan.Cell) {
	b := e.buf
	if e.n == 0 {
		b = append(b, `{"mergeOption":"overwrite","contacts":[`...)
	} else {
		b = append(b, ',')
	}
	b = append(b, `{"matchIdentifier":"email","identifiers":{"email":`...)
	b = lockstep.AppendJSONString(b, lockstep.NormalizeEmail(cells[0].Text()))
	b = append(b, `},"dataFields":{`...)
	for i, f := range work.Fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.Label...), '"', ':')
		switch c := cells[i+1]; c.Kind() {
		case pagescan.String:
			text := c.Text()
			if f.Type == lockstep.FieldDate {
				text = strings.TrimSuffix(text, "Z")
			}
			b = lockstep.AppendJSONString(b, text)
		case pagescan.Number:
			b = append(b, c.Raw()...)
		case pagescan.True:
			b = append(b, "true"...)
		case pagescan.False:
			b = append(b, "false"...)
		default:
			b = append(b, "null"...)
		}
	}
	b = append(b, '}', '}')
	e.buf = b
	e.n++
}

// write imports one body and waits for its end.
func (f *floor) write(ctx context.Context, body []byte) error {
	id, err := f.mail(ctx, http.MethodPut, "/contacts/v3/import", body)
	if err != nil {
		return err
	}
	var job struct {
		ImportID string `json:"importId"`
	}
	if err := json.Unmarshal([]byte(id), &job); err != nil {
		return err
	}
	for wait := time.Duration(0); ; wait = min(max(2*wait, 100*time.Millisecond), 15*time.Second) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		text, err := f.mail(ctx, http.MethodGet, "/contacts/v3/import/"+job.ImportID, nil)
		if err != nil {
			return err
		}
		status, _ := pagescan.Peek(text, "status")
		switch status {
		case "NotFinished", "NotStarted", "Processing":
		case "Finished":
			return nil
		default:
			return fmt.Errorf("the import ended as %q", status)
		}
	}
}

func (f *floor) mail(ctx context.Context, method, path string, body []byte) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, f.access.Dotdigital.URL+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(f.access.Dotdigital.User, f.access.Dotdigital.Password)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return f.do(req, 0)
}
