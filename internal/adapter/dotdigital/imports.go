package dotdigital

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/pagescan"
)

const (
	// maxImportBody leaves room below the 50 MB that the body of an import may have.
	maxImportBody = 48 << 20
	// resultBatch is how many results are handed over at once.
	resultBatch = 1000
)

// Import hands rows over with one call; rows of more than 48 MB together take a
// call for each such portion, and the job is then all of them. An import changes
// what it is given and nothing else, so that repeating it is harmless: the error's
// Unknown says when rows may have been taken although it failed.
func (c *Client) Import(ctx context.Context, fields []string, rows []lockstep.ContactWrite) (lockstep.JobID, error) {
	q := call{op: "import contacts", method: http.MethodPut, path: "/contacts/v3/import"}
	if len(rows) == 0 || len(rows) > maxImport {
		return "", invalid(q.name(), "rows", "an import takes 1 to "+strconv.Itoa(maxImport)+" rows", "hand them over in portions")
	}
	for i := range rows {
		if field, problem := checkRow(&rows[i], len(fields)); problem != "" {
			return "", invalid(q.name(), field, "row "+strconv.Itoa(i)+" of the import "+problem, "")
		}
	}
	enc := newImportEncoder(fields)
	var jobs []string
	for len(rows) > 0 {
		id, n, err := c.importSome(ctx, q, enc, rows)
		if err != nil {
			if len(jobs) > 0 {
				e := *lockstep.AsError(err)
				e.Unknown = true
				return "", &e
			}
			return "", err
		}
		jobs = append(jobs, id)
		rows = rows[n:]
	}
	return lockstep.JobID(strings.Join(jobs, ",")), nil
}

func (c *Client) importSome(ctx context.Context, q call, enc importEncoder, rows []lockstep.ContactWrite) (id string, n int, err error) {
	buf := bodies.Get().(*[]byte)
	*buf, n = enc.body((*buf)[:0], rows, c.maxBody)
	if n == 0 {
		bodies.Put(buf)
		return "", 0, invalid(q.name(), "values", "one row alone is larger than Dotdigital accepts", "shorten its texts")
	}
	q.body, q.rows = *buf, n
	var accepted struct {
		ID string `json:"importId"`
	}
	if err = c.do(ctx, q, object(&q, &accepted, func() bool { return jobName(accepted.ID) })); err != nil {
		// The buffer is left alone: the transport may still be sending it.
		return "", 0, err
	}
	bodies.Put(buf)
	return accepted.ID, n, nil
}

// resultColumns are the members of an import's result.
var resultColumns = pagescan.NewColumns("status", "created", "updated", "failures")

const (
	colResult = iota
	colCreatedRows
	colUpdatedRows
	colFailures
	resultColumnCount
)

// AwaitImport asks until the import has ended: at once, then after 0.1 s, doubling
// to 15 s. The calls count as polls.
func (c *Client) AwaitImport(ctx context.Context, job lockstep.JobID, each func([]lockstep.ContactResult) error) error {
	for id := range strings.SplitSeq(string(job), ",") {
		if err := c.awaitImport(ctx, id, each); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) awaitImport(ctx context.Context, id string, each func([]lockstep.ContactResult) error) error {
	q := call{op: "await import of contacts", method: http.MethodGet, route: "/contacts/v3/import/{id}", repeat: true, poll: true, max: maxPage}
	if !jobName(id) {
		return unknownJob(q.name())
	}
	q.path = "/contacts/v3/import/" + id
	var cells [resultColumnCount]pagescan.Cell
	err := c.await(ctx, &q, id, func() (bool, error) {
		err := c.do(ctx, q, func(body []byte) error {
			body = bytes.TrimSpace(body)
			if len(body) == 0 || body[0] != '{' {
				return senseless(&q, "the answer is not Dotdigital's: "+shapeOf(body), nil)
			}
			if err := single(string(body), resultColumns, cells[:]); err != nil {
				return senseless(&q, "the answer is no result of an import", err)
			}
			if cells[colResult].Kind() != pagescan.String {
				if r := readRefusal(http.StatusBadRequest, body); r.known {
					return judge(q.name(), r, 0, false)
				}
				return senseless(&q, "the answer is no result of an import", nil)
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		switch strings.ToLower(cells[colResult].Text()) {
		case "notfinished", "notstarted", "processing":
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return outcomeUnknown(err)
	}
	// What the result tells is delivered even when the import ended badly.
	if err := deliver(&q, cells[:], each); err != nil {
		return err
	}
	return importEnded(q.name(), id, cells[colResult].Text())
}

// outcomeUnknown says of an error in asking about a job that the job may have been
// carried out all the same.
func outcomeUnknown(err error) error {
	if _, ok := errors.AsType[*lockstep.Error](err); !ok {
		return err // the caller's own
	}
	e := *lockstep.AsError(err)
	e.Unknown = true
	return &e
}

// importEnded says what a final status asks for; nil = the import was carried out.
func importEnded(op, id, status string) error {
	e := &lockstep.Error{Op: op, Scope: lockstep.ScopeBatch, Upstream: token(status)}
	switch strings.ToLower(status) {
	case "finished":
		return nil
	case "rejectedbywatchdog":
		e.Code = lockstep.CodeGuarded
		e.Msg = "Dotdigital's list quality check held the import " + id
		e.Hint = "look at the import in Dotdigital under Audience, Imports and release it there, or ask Dotdigital's support; sending it again does not help"
	case "exceedsallowedcontactlimit":
		e.Code = lockstep.CodeForbidden
		e.Scope = lockstep.ScopeConnection
		e.Msg = "the import " + id + " would give the account more contacts than it may have"
		e.Hint = "delete contacts that are not needed, or ask Dotdigital for a larger contact allowance"
	case "failed":
		e.Code, e.Unknown = lockstep.CodeUnavailable, true
		e.Msg = "Dotdigital could not carry out the import " + id
		e.Hint = "it is sent again; if it fails again, give Dotdigital's support this number"
	default:
		e.Code, e.Unknown = lockstep.CodeUnavailable, true
		e.Msg = "the import " + id + " ended in a way that is not known"
		e.Hint = "look at the import in Dotdigital under Audience, Imports"
	}
	return e
}

// deliver hands the results over: each contact that was created or updated, with
// the fault that it may have besides, then the rows that were refused altogether.
func deliver(q *call, cells []pagescan.Cell, each func([]lockstep.ContactResult) error) error {
	f, err := readFaults(cells[colFailures])
	if err != nil {
		return senseless(q, "the faults of the import cannot be read", err)
	}
	b := &batch{each: each}
	for _, list := range []struct {
		rows    pagescan.Cell
		created bool
	}{{cells[colCreatedRows], true}, {cells[colUpdatedRows], false}} {
		if list.rows.Kind() != pagescan.Array {
			continue
		}
		var stopped error
		err := list.rows.Elements(func(row pagescan.Cell) error {
			who, err := readIdentity(row)
			if err != nil {
				return err
			}
			stopped = b.add(who, list.created, f.of(who))
			return stopped
		})
		if stopped != nil {
			return stopped
		}
		if err != nil {
			return senseless(q, "the result of the import cannot be read", err)
		}
	}
	for i := range f.rows {
		if r := &f.rows[i]; !r.delivered {
			if err := b.add(r.who, false, r.fault); err != nil {
				return err
			}
		}
	}
	return b.flush()
}

// identity names the contact of a result.
type identity struct{ contact, email string }

// readIdentity reads the contactId and identifiers.email of a result row.
func readIdentity(row pagescan.Cell) (who identity, err error) {
	if row.Kind() != pagescan.Object {
		return who, errNoObject
	}
	err = row.EachMember(who.member)
	return who, err
}

func (who *identity) member(name string, v pagescan.Cell) error {
	switch {
	case name == "contactId" && v.Kind() == pagescan.Number && wholeID(v.Raw()) && v.Raw() != "0":
		who.contact = v.Raw()
	case name == "email" && v.Kind() == pagescan.String:
		who.email = lockstep.NormalizeEmail(v.Text())
	case name == "identifiers" && v.Kind() == pagescan.Object:
		return v.EachMember(func(name string, v pagescan.Cell) error {
			if name == "identifiers" {
				return nil
			}
			return who.member(name, v)
		})
	}
	return nil
}

// batch collects results and hands them over by the thousand. Their texts are one
// text of the batch, so that keeping a result does not keep the whole answer.
type batch struct {
	each func([]lockstep.ContactResult) error
	rows []lockstep.ContactResult
	text []byte
	ends []int
}

func (b *batch) add(who identity, created bool, fault *lockstep.Error) error {
	if b.rows == nil {
		b.rows = make([]lockstep.ContactResult, 0, resultBatch)
	}
	b.rows = append(b.rows, lockstep.ContactResult{Created: created, Fault: fault})
	b.text = append(b.text, who.contact...)
	b.ends = append(b.ends, len(b.text))
	b.text = append(b.text, who.email...)
	b.ends = append(b.ends, len(b.text))
	if len(b.rows) == resultBatch {
		return b.flush()
	}
	return nil
}

func (b *batch) flush() error {
	if len(b.rows) == 0 {
		return nil
	}
	text, start := string(b.text), 0
	for i := range b.rows {
		b.rows[i].Contact = lockstep.ContactID(text[start:b.ends[2*i]])
		b.rows[i].Email = text[b.ends[2*i]:b.ends[2*i+1]]
		start = b.ends[2*i+1]
	}
	rows := b.rows
	b.rows, b.text, b.ends = nil, b.text[:0], b.ends[:0]
	return b.each(rows)
}
