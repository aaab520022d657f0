package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-sync/lockstep/bench/work"
)

// The lists of the twins' regular company: both hold everybody.
const (
	dynamicList = "Everyone"
	staticList  = "Everyone (static)"
)

// The delays of PF-6.
const (
	perCall = 80 * time.Millisecond
	perRow  = 20 * time.Microsecond
)

// load carries out a first full load on new twins and hands the running pair on.
func (b *bench) load(c twinsConfig, list string, then func(*twins, *product, measured) error) (m measured, err error) {
	t, err := b.startTwins(c)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startProduct(t, list, false)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if m, err = p.sync(t); err != nil {
		return m, err
	}
	if n := m.run.Counts.ContactsCreated; n != int64(c.Contacts) {
		return m, fmt.Errorf("%d of %d contacts were created", n, c.Contacts)
	}
	say("  lockstep, %s, %d contacts: %.2f s, cpu %.2f s, %.0f MB, %d calls", list, c.Contacts, m.wall.Seconds(), m.cpu.Seconds(), m.rss, m.callCount())
	if then != nil {
		err = then(t, p, m)
	}
	return m, err
}

// callCount is the number of API calls without questions about a job's status.
func (m measured) callCount() (n int64) {
	for _, c := range m.calls {
		for op, k := range c.Operations {
			if !isPoll(op) {
				n += k
			}
		}
	}
	return n
}

func isPoll(operation string) bool { return strings.Contains(operation, "status") }

// writeCount is the number of calls that change something, by the twins' names of
// their operations.
func (m measured) writeCount() (n int64) {
	for _, c := range m.calls {
		for op, k := range c.Operations {
			_, verb, ok := strings.Cut(op, ".")
			if !ok {
				verb = op
			}
			if slices.ContainsFunc([]string{"create", "update", "upsert", "delete", "remove", "add", "import", "suppress", "subscribe", "batch"}, func(w string) bool {
				return strings.Contains(strings.ToLower(verb), w) && !isPoll(op) && !strings.HasSuffix(op, "-since") // suppressed-since asks
			}) {
				n += k
			}
		}
	}
	return n
}

// operations lists what was called how often.
func (m measured) operations() string {
	var out []string
	for system, c := range m.calls {
		for op, k := range c.Operations {
			out = append(out, fmt.Sprintf("%s %s %d", system, op, k))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// floorRun is what the floor needed.
type floorRun struct {
	wall, cpu, delta time.Duration
	rss              float64
	calls            map[string]counts
}

// floor runs the floor on new twins. With changes it follows the delta link too,
// after that many contacts were changed; then is called between the two.
func (b *bench) floor(c twinsConfig, changes int, then func(*twins) error) (f floorRun, err error) {
	t, err := b.startTwins(c)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	for _, field := range work.Fields {
		if err := t.makeField(field); err != nil {
			return f, err
		}
	}
	if err := t.reset(); err != nil {
		return f, err
	}
	args := []string{"-ready", t.file}
	if changes > 0 {
		args = append(args, "-change")
	}
	cmd := exec.CommandContext(b.ctx, b.flor, args...) //nolint:gosec // our own program
	var problems bytes.Buffer
	cmd.Stderr = &problems
	in, err := cmd.StdinPipe()
	if err != nil {
		return f, err
	}
	outPipe, err := cmd.StdoutPipe()
	if err != nil {
		return f, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return f, err
	}
	lines := bufio.NewScanner(outPipe)
	var got struct {
		Contacts, Changed int
		Load, Delta       float64
	}
	next := func() error {
		if !lines.Scan() {
			return fmt.Errorf("the floor ended: %v: %s", cmd.Wait(), problems.Bytes()) //nolint:errorlint // it may have ended without an error
		}
		return json.Unmarshal(lines.Bytes(), &got)
	}
	if err := next(); err != nil {
		return f, err
	}
	f.wall = time.Since(began)
	if f.calls, err = t.stats(); err != nil {
		return f, err
	}
	if got.Contacts != c.Contacts {
		return f, fmt.Errorf("the floor carried %d of %d contacts", got.Contacts, c.Contacts)
	}
	if then != nil {
		if err := then(t); err != nil {
			return f, err
		}
	}
	if changes > 0 {
		if err := t.change(b.ids, "floor", changes); err != nil {
			return f, err
		}
		if _, err := in.Write([]byte("\n")); err != nil {
			return f, err
		}
		if err := next(); err != nil {
			return f, err
		}
		if got.Changed != changes {
			return f, fmt.Errorf("the floor saw %d of %d changes", got.Changed, changes)
		}
		f.delta = time.Duration(got.Delta * float64(time.Second))
	}
	if _, err := io.Copy(io.Discard, outPipe); err != nil {
		return f, err
	}
	if err := cmd.Wait(); err != nil {
		return f, fmt.Errorf("the floor: %w: %s", err, problems.Bytes())
	}
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	f.rss = float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024 / 1e6
	say("  floor, %d contacts: %.2f s, cpu %.2f s, %.0f MB, %d calls", c.Contacts, f.wall.Seconds(), f.cpu.Seconds(), f.rss, measured{calls: f.calls}.callCount())
	return f, nil
}

// pick makes a column of figures.
func pick[T any](from []T, figure func(T) float64) []float64 {
	out := make([]float64, len(from))
	for i, v := range from {
		out[i] = figure(v)
	}
	return out
}

// usual is the first full load of the usual size with what follows it: a second
// run, a second full load, and a small change.
func (b *bench) usual() error {
	say("full load of %d contacts", b.contacts)
	var loads, statics []measured
	var floors []floorRun
	var seconds, repeats []measured
	var delta deltaRun
	c := twinsConfig{Contacts: b.contacts}
	for i := range b.runs {
		last := i == b.runs-1
		m, err := b.load(c, dynamicList, func(t *twins, p *product, _ measured) (err error) {
			if last {
				if err = t.compare(b.contacts); err != nil {
					return fmt.Errorf("Lockstep's result: %w", err)
				}
			}
			again, err := p.sync(t)
			if err != nil {
				return err
			}
			if err = t.expireDelta(); err != nil {
				return err
			}
			full, err := p.sync(t)
			if err != nil {
				return err
			}
			seconds, repeats = append(seconds, again), append(repeats, full)
			if !last {
				return nil
			}
			say("  second full load: %d read, %d calls, %d writes", full.run.Counts.Read, full.callCount(), full.writeCount())
			delta, err = b.delta(t, p)
			return err
		})
		if err != nil {
			return err
		}
		f, err := b.floor(c, changedRows, func(t *twins) error {
			if last {
				if err := t.compare(b.contacts); err != nil {
					return fmt.Errorf("the floor's result: %w", err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		loads, floors = append(loads, m), append(floors, f)
	}
	for range b.runs {
		m, err := b.load(c, staticList, nil)
		if err != nil {
			return err
		}
		statics = append(statics, m)
	}
	wall := func(m measured) float64 { return m.wall.Seconds() }
	cpu := func(m measured) float64 { return m.cpu.Seconds() }
	rss := func(m measured) float64 { return m.rss }
	calls := func(m measured) float64 { return float64(m.callCount()) }
	writes := func(m measured) float64 { return float64(m.writeCount()) }
	fcalls := func(f floorRun) float64 { return float64(measured{calls: f.calls}.callCount()) }
	n := thousands(b.contacts)
	b.add(
		result{id: "PF-1", what: "full load of " + n + " contacts, 10 fields, dynamic list: wall", unit: "s", values: pick(loads, wall), floor: pick(floors, func(f floorRun) float64 { return f.wall.Seconds() }), target: 1, stretch: 0.5},
		result{id: "PF-2", what: "same: CPU of the process", unit: "s", values: pick(loads, cpu), floor: pick(floors, func(f floorRun) float64 { return f.cpu.Seconds() }), target: 1.2, stretch: 0.6},
		result{id: "PF-3", what: "same: peak RSS", unit: "MB", values: pick(loads, rss), floor: pick(floors, func(f floorRun) float64 { return f.rss }), target: 64, stretch: 40},
		result{id: "PF-4", what: "same: API calls, status polls apart", unit: "calls", values: pick(loads, calls), floor: pick(floors, fcalls), target: 24, stretch: 21},
		result{id: "PF-1", what: "the same with the static list: wall", unit: "s", values: pick(statics, wall), target: 1, stretch: 0.5},
		result{id: "PF-2", what: "static list: CPU of the process", unit: "s", values: pick(statics, cpu), target: 1.2, stretch: 0.6},
		result{id: "PF-3", what: "static list: peak RSS", unit: "MB", values: pick(statics, rss), target: 64, stretch: 40},
		result{id: "PF-4", what: "static list: API calls, status polls apart", unit: "calls", values: pick(statics, calls), target: 24, stretch: 21},
		result{id: "PF-7", what: "second run, nothing changed: calls that write", unit: "calls", values: pick(seconds, writes), note: fmt.Sprintf("%d calls in all, %.2f s", seconds[0].callCount(), median(pick(seconds, wall)))},
		result{
			id: "PF-7", what: "second full load (delta token expired), nothing changed: calls that write", unit: "calls", values: pick(repeats, writes),
			note: fmt.Sprintf("%s records read and compared, %.2f s", thousands(int(repeats[0].run.Counts.Read)), median(pick(repeats, wall))),
		},
		result{
			id: "PF-8", what: fmt.Sprintf("delta of %d in a running server: start of the run to change visible", changedRows), unit: "ms", values: delta.visible,
			floor: pick(floors, func(f floorRun) float64 { return f.delta.Seconds() * 1000 }), target: 50, stretch: 20, note: "from the request of the run: " + format(median(delta.requested)) + " ms",
		},
		result{id: "PF-8", what: "same: API calls, status polls apart", unit: "calls", values: delta.calls, target: 3, stretch: 3, note: delta.operations},
	)
	b.note("What came of it", "After the last full load of each program every one of the %s contacts was read back from the twins and says, field by field, what its CRM record says.\n\nCalls of Lockstep's full load: %s.\n\nCalls of the floor's: %s.",
		n, loads[len(loads)-1].operations(), measured{calls: floors[0].calls}.operations())
	if err := b.deltaProfile(c); err != nil {
		return err
	}
	return b.profiles(c, "PF-1", "PF-2", "PF-3", "PF-4")
}

// changedRows is the size of the small change.
const changedRows = 100

type deltaRun struct {
	visible, requested []float64 // ms
	calls              []float64
	operations         string
}

// delta changes some contacts in the CRM and measures how long a run takes until
// the platform shows it.
func (b *bench) delta(t *twins, p *product) (d deltaRun, err error) {
	// Feeds by time reach back a few minutes. The load is not to lie in there: in a
	// running server it was days ago.
	if err := t.anHourLater(); err != nil {
		return d, err
	}
	if _, err := p.sync(t); err != nil {
		return d, err
	}
	for i := range max(3, b.runs) {
		city := fmt.Sprintf("Bench %d", i)
		if err := t.change(b.ids, city, changedRows); err != nil {
			return d, err
		}
		if err := t.reset(); err != nil {
			return d, err
		}
		asked := time.Now()
		run, err := p.begin()
		if err != nil {
			return d, err
		}
		looks := int64(0)
		for seen := false; !seen; looks++ {
			var c struct {
				DataFields []struct {
					Key   string
					Value any
				} `json:"dataFields"`
			}
			if err := t.mail(http.MethodGet, "/v2/contacts/"+url.PathEscape(b.ids[changedRows-1].email), nil, &c); err != nil {
				return d, err
			}
			for _, f := range c.DataFields {
				seen = seen || f.Key == "CITY" && f.Value == city
			}
			if !seen && time.Since(asked) > time.Minute {
				return d, errors.New("the change did not arrive in a minute")
			}
		}
		shown := time.Now()
		if run, err = p.wait(run.ID, time.Millisecond); err != nil {
			return d, err
		}
		m := measured{run: run}
		if m.calls, err = t.stats(); err != nil {
			return d, err
		}
		delete(m.calls["dotdigital"].Operations, "contacts.get-v2") // the looks above
		d.requested = append(d.requested, shown.Sub(asked).Seconds()*1000)
		d.visible = append(d.visible, shown.Sub(run.Started).Seconds()*1000)
		d.calls = append(d.calls, float64(m.callCount()))
		d.operations = m.operations()
	}
	say("  delta of %d: %s ms to visible, %s calls", changedRows, format(median(d.visible)), format(median(d.calls)))
	return d, nil
}

// known is a contact of the CRM.
type known struct{ id, email string }

// change gives the first n contacts another city.
func (t *twins) change(ids []known, city string, n int) error {
	type row map[string]any
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": ids[i].id, "address1_city": city}
	}
	return t.crm(http.MethodPost, "contacts/Microsoft.Dynamics.CRM.UpdateMultiple", map[string]any{"Targets": rows}, nil)
}

// meet reads the first contacts of the company, which is the same each time.
func (b *bench) meet() (err error) {
	t, err := b.startTwins(twinsConfig{Contacts: b.contacts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	var page struct{ Value []map[string]any }
	if err := t.crm(http.MethodGet, "contacts?$select=emailaddress1", nil, &page); err != nil {
		return err
	}
	for _, r := range page.Value[:changedRows] {
		id, _ := r["contactid"].(string)
		email, _ := r["emailaddress1"].(string)
		b.ids = append(b.ids, known{id, strings.ToLower(email)})
	}
	return nil
}

// distantLoad is the full load with the delays of a distant service.
func (b *bench) distantLoad() error {
	say("full load of %d contacts from afar", b.contacts)
	c := twinsConfig{Contacts: b.contacts, PerCall: perCall, PerRow: perRow}
	var loads []measured
	var floors []floorRun
	for range b.runs {
		m, err := b.load(c, dynamicList, nil)
		if err != nil {
			return err
		}
		f, err := b.floor(c, 0, nil)
		if err != nil {
			return err
		}
		loads, floors = append(loads, m), append(floors, f)
	}
	b.add(result{
		id: "PF-6", what: fmt.Sprintf("full load of %s contacts, %v a call, %v a written row: wall", thousands(b.contacts), perCall, perRow), unit: "s",
		values: pick(loads, func(m measured) float64 { return m.wall.Seconds() }), floor: pick(floors, func(f floorRun) float64 { return f.wall.Seconds() }), target: 1.5, stretch: 1,
		note: fmt.Sprintf("%d calls", loads[0].callCount()),
	})
	return b.profiles(c, "PF-6")
}

// largeLoad is the full load of a large company.
func (b *bench) largeLoad() error {
	say("full load of %d contacts", b.large)
	c := twinsConfig{Contacts: b.large}
	var loads []measured
	var floors []floorRun
	for range b.largeRuns {
		m, err := b.load(c, dynamicList, nil)
		if err != nil {
			return err
		}
		f, err := b.floor(c, 0, nil)
		if err != nil {
			return err
		}
		loads, floors = append(loads, m), append(floors, f)
	}
	n := thousands(b.large)
	b.add(
		result{
			id: "PF-5", what: "full load of " + n + " contacts: wall", unit: "s", values: pick(loads, func(m measured) float64 { return m.wall.Seconds() }),
			floor: pick(floors, func(f floorRun) float64 { return f.wall.Seconds() }), target: 10, stretch: 5, note: fmt.Sprintf("cpu %.1f s, %d calls", loads[0].cpu.Seconds(), loads[0].callCount()),
		},
		result{
			id: "PF-5", what: "same: peak RSS", unit: "MB", values: pick(loads, func(m measured) float64 { return m.rss }),
			floor: pick(floors, func(f floorRun) float64 { return f.rss }), target: 128, stretch: 96,
		},
	)
	return b.profiles(c, "PF-5")
}

// flatMemory compares the memory of a small and a huge load.
func (b *bench) flatMemory() error {
	if !b.huge {
		return nil
	}
	say("memory at %d and %d contacts", b.small, b.big)
	var rss [2][]float64
	for range b.largeRuns {
		for i, n := range []int{b.small, b.big} {
			m, err := b.load(twinsConfig{Contacts: n}, dynamicList, nil)
			if err != nil {
				return err
			}
			rss[i] = append(rss[i], m.rss)
		}
	}
	small, big := rss[0], rss[1]
	ratios := make([]float64, len(big))
	for i := range big {
		ratios[i] = big[i] / small[i]
	}
	b.add(result{
		id: "PF-16", what: fmt.Sprintf("peak RSS at %s contacts / at %s", thousands(b.big), thousands(b.small)), unit: "×", values: ratios, target: 3, stretch: 3,
		note: fmt.Sprintf("medians %.0f MB / %.0f MB", median(big), median(small)),
	})
	return b.memoryProfiles()
}

// twinSpeed measures the twins themselves: otherwise one would measure them and not
// the product.
func (b *bench) twinSpeed() (err error) {
	say("speed of the twins")
	t, err := b.startTwins(twinsConfig{Contacts: b.contacts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	var speeds, creates []float64
	for i := range b.runs + 1 {
		began := time.Now()
		n, err := t.readAll()
		if err != nil {
			return err
		}
		if i > 0 { // the first one warms up
			speeds = append(speeds, float64(n)/1e6/time.Since(began).Seconds())
		}
	}
	create := func() error {
		for _, body := range createBodies(100_000, 1000) {
			began := time.Now()
			if err := t.crm(http.MethodPost, "contacts/Microsoft.Dynamics.CRM.CreateMultiple", body, nil); err != nil {
				return err
			}
			creates[len(creates)-1] += time.Since(began).Seconds()
		}
		return nil
	}
	for range b.runs {
		creates = append(creates, 0)
		if err := create(); err != nil {
			return err
		}
	}
	pages := result{id: "PF-19", what: "the Dataverse twin serves pages of 5,000 rows, uncompressed, one caller", unit: "MB/s", values: speeds, target: 300, stretch: 300, higher: true}
	bulk := result{id: "PF-19", what: "100,000 creates through CreateMultiple, 1,000 a call", unit: "s", values: slices.Clone(creates), target: 2, stretch: 2}
	b.add(pages, bulk)
	if !pages.met(pages.target) {
		return b.twinProfile(t, "serving pages", func() error { _, err := t.readAll(); return err })
	}
	if !bulk.met(bulk.target) {
		return b.twinProfile(t, "creating contacts", create)
	}
	return nil
}

// readAll reads all contacts, 5,000 a page, and tells how many bytes they were.
func (t *twins) readAll() (n int64, err error) {
	const columns = "emailaddress1,firstname,lastname,fullname,jobtitle,telephone1,address1_city,address1_country,numberofchildren,donotbulkemail,modifiedon"
	var text bytes.Buffer
	for next := "contacts?$select=" + columns; next != ""; {
		text.Reset()
		if err := t.crm(http.MethodGet, next, nil, &text); err != nil {
			return n, err
		}
		n += int64(text.Len())
		next = linkAfter(text.Bytes(), `"@odata.nextLink":"`)
	}
	return n, nil
}

func linkAfter(text []byte, mark string) string {
	i := bytes.Index(text, []byte(mark))
	if i < 0 {
		return ""
	}
	text = text[i+len(mark):]
	end := bytes.IndexByte(text, '"')
	var link string
	if end < 0 || json.Unmarshal(append(append([]byte{'"'}, text[:end]...), '"'), &link) != nil {
		return ""
	}
	return link
}

// createBodies are the bodies of bulk creates, made before the clock runs.
func createBodies(rows, each int) [][]byte {
	var out [][]byte
	for i := 0; i < rows; i += each {
		b := []byte(`{"Targets":[`)
		for j := range each {
			if j > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `{"@odata.type":"Microsoft.Dynamics.CRM.contact","firstname":"Ada","lastname":"Number %d","emailaddress1":"ada.%d.%d@bench.example","address1_city":"Oslo"}`, i+j, i+j, os.Getpid())
		}
		out = append(out, append(b, ']', '}'))
	}
	return out
}
