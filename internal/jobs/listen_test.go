package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
)

// quiet is a database that is told of nothing and counts how often it is asked.
type quiet struct {
	riverdriver.Listener
	asked int
}

func (q *quiet) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	q.asked++
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestListenerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := &quiet{}, newStir()
		l := &listener{Listener: db, driver: &sqliteDriver{stir: s, queues: []string{"a", "b"}}}
		ctx, cancel := context.WithCancel(t.Context())
		said, ended := map[string]int{}, make(chan error)
		go func() {
			for {
				n, err := l.WaitForNotification(ctx)
				if err != nil {
					ended <- err
					return
				}
				if n.Topic != insertTopic {
					t.Errorf("the topic is %s", n.Topic)
				}
				said[n.Payload]++
			}
		}()
		during := func(d time.Duration) (asked int, queues string) {
			clear(said)
			was := db.asked
			time.Sleep(d)
			synctest.Wait()
			for q := range said {
				queues += q
			}
			return db.asked - was, queues
		}
		if asked, queues := during(time.Minute); asked > 13 || queues != "" {
			t.Errorf("idle: the database was asked %d times in a minute, and %q may have work", asked, queues)
		}
		s.note()
		if _, queues := during(time.Second); !strings.Contains(queues, `"a"`) || !strings.Contains(queues, `"b"`) {
			t.Errorf("something was done: %q may have work", queues)
		}
		s.ended(river.JobSnooze(time.Minute), 0)
		during(restlessFor + time.Second)
		if _, queues := during(55 * time.Second); queues != "" {
			t.Errorf("before the job is due %q may have work", queues)
		}
		if _, queues := during(5 * time.Second); queues == "" {
			t.Error("nobody looks for the job that is due")
		}
		s.ended(errors.New("the database failed"), 30*time.Second)
		during(25 * time.Second)
		if _, queues := during(6 * time.Second); queues == "" {
			t.Error("nobody looks for the job that failed")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
