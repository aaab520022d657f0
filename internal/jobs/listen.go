package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// SQLite tells nobody of anything, so that River asks it twenty times a second what was
// said, and each queue four times for work, also on a night on which nothing happens.
// Whoever uses SQLite is alone with it, however, and knows when something is done. So the
// database is asked as often only for a while after that, and rarely else.
const (
	restlessFor = 2 * time.Second
	// River makes a job that was put aside for long due a while after its time.
	restlessDue = 6 * time.Second
	askRestless = 250 * time.Millisecond // the database, and every queue for work
	askIdle     = 5 * time.Second
	askFor      = 100 * time.Millisecond // one question; what is missed the next one finds
)

// stir is when something was done with the queue. None, nil, is that of a database which
// tells by itself.
type stir struct {
	begun time.Time
	until atomic.Int64 // is something to be expected, in nanoseconds since begun
	wakes chan struct{}
}

func newStir() *stir { return &stir{wakes: make(chan struct{}, 1), begun: time.Now()} }

// note says that something was done.
func (s *stir) note() { s.expect(restlessFor) }

// ended says that a job came to an end, and with a snooze when it goes on.
func (s *stir) ended(err error, retry time.Duration) {
	if s == nil {
		return
	}
	s.note()
	wait := retry
	if snooze, ok := errors.AsType[*river.JobSnoozeError](err); ok {
		wait = snooze.Duration
	}
	if err != nil {
		time.AfterFunc(wait, func() { s.expect(restlessDue) })
	}
}

func (s *stir) expect(d time.Duration) {
	if s == nil {
		return
	}
	until := int64(time.Since(s.begun) + d)
	for was := s.until.Load(); was < until && !s.until.CompareAndSwap(was, until); {
		was = s.until.Load()
	}
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// expects reports whether something is to be expected.
func (s *stir) expects() bool { return int64(time.Since(s.begun)) < s.until.Load() }

// sqliteDriver is River's, with a listener that rests while nothing is done.
type sqliteDriver struct {
	*riversqlite.Driver
	stir   *stir
	queues []string
}

func newSQLiteDriver(db *sql.DB, s *stir, queues ...string) *sqliteDriver {
	return &sqliteDriver{riversqlite.New(db), s, queues}
}

func (d *sqliteDriver) GetListener(p *riverdriver.GetListenenerParams) riverdriver.Listener {
	return &listener{Listener: d.Driver.GetListener(p), driver: d}
}

type listener struct {
	riverdriver.Listener
	driver *sqliteDriver
	turn   int // of the queues that are said to have work
}

// insertTopic is where River says that a queue got work.
const insertTopic = "river_insert"

// WaitForNotification returns what the database was told, and while something is done
// that each queue may have work: a job that was put aside becomes due without a word.
func (l *listener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		if l.turn > 0 { // the other queues at once
			return l.work()
		}
		restless, most := l.driver.stir.expects(), askFor
		if restless {
			most = askRestless
		}
		ask, cancel := context.WithTimeout(ctx, most)
		n, err := l.Listener.WaitForNotification(ask)
		over := ask.Err() != nil
		cancel()
		switch {
		case err == nil:
			return n, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !over:
			return nil, err
		case restless:
			return l.work()
		}
		t := time.NewTimer(askIdle)
		select {
		case <-ctx.Done():
		case <-l.driver.stir.wakes:
		case <-t.C:
		}
		t.Stop()
	}
}

// work says that the next queue may have work.
func (l *listener) work() (*riverdriver.Notification, error) {
	payload, err := json.Marshal(map[string]string{"queue": l.driver.queues[l.turn]})
	l.turn = (l.turn + 1) % len(l.driver.queues)
	return &riverdriver.Notification{Topic: insertTopic, Payload: string(payload)}, err
}
