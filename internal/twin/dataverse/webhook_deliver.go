package dataverse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
)

const (
	// hookTimeout is how long a receiver may take for its answer.
	hookTimeout = time.Minute
	// hookWorkers is how many deliveries are on their way at a time, in no order.
	hookWorkers = 8
	// maxWaiting bounds the deliveries that wait. The service keeps all of them; here
	// one that does not find room has failed.
	maxWaiting = 100_000
)

// delivery is one message on its way to one receiver.
type delivery struct {
	step    *step
	message *announcement
	change  store.Change
}

// Deliveries counts what was posted to webhooks since the start.
type Deliveries struct {
	Delivered int64 `json:"delivered"`
	Failed    int64 `json:"failed"`
	Retried   int64 `json:"retried"`
	// Waiting are those that wait or are on their way.
	Waiting int `json:"waiting"`
}

// deliveries posts messages to their receivers. Goroutines exist only while there is
// something to post.
type deliveries struct {
	s      *Server
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting []delivery
	workers int
	idle    chan struct{} // closed when the last worker ends; nil while there is none
	closed  bool
	counts  Deliveries
	running sync.WaitGroup
}

func newDeliveries(s *Server) *deliveries {
	d := &deliveries{s: s}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.client = &http.Client{
		Timeout:       hookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: hookWorkers, IdleConnTimeout: time.Second, DisableCompression: true,
		},
	}
	return d
}

// add queues a delivery. It is called under the store's lock.
func (d *deliveries) add(item delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if len(d.waiting) >= maxWaiting {
		d.counts.Failed++
		return
	}
	d.waiting = append(d.waiting, item)
	if d.workers < hookWorkers && d.workers < len(d.waiting) {
		if d.workers == 0 {
			d.idle = make(chan struct{})
		}
		d.workers++
		d.running.Go(d.work)
	}
}

func (d *deliveries) next() (delivery, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 || d.closed {
		if d.workers--; d.workers == 0 {
			close(d.idle)
			d.idle, d.waiting = nil, nil
		}
		return delivery{}, false
	}
	item := d.waiting[0]
	d.waiting[0] = delivery{}
	d.waiting = d.waiting[1:]
	return item, true
}

func (d *deliveries) work() {
	for {
		item, ok := d.next()
		if !ok {
			return
		}
		began := d.s.clock.Now()
		failure := d.post(item)
		d.mu.Lock()
		if failure == "" {
			d.counts.Delivered++
		} else {
			d.counts.Failed++
		}
		d.mu.Unlock()
		if d.ctx.Err() == nil {
			d.s.reportJob(item, began, failure)
		}
	}
}

// post delivers one message and says in words what failed. A receiver that answers
// 502, 503 or 504 is asked once more; nothing else is tried again.
func (d *deliveries) post(item delivery) (failure string) {
	body, exceeded := d.s.hookBody(item)
	for attempt := 0; ; attempt++ {
		status, err := d.once(item, body, exceeded)
		switch {
		case err != nil:
			if wrapped, ok := errors.AsType[*url.Error](err); ok { // its text has the URL, which may carry the secret
				err = wrapped.Err
			}
			return fmt.Sprintf("The webhook call failed: %v.", err)
		case status >= 200 && status < 300:
			return ""
		case attempt == 0 && (status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout):
			d.mu.Lock()
			d.counts.Retried++
			d.mu.Unlock()
			continue
		}
		return fmt.Sprintf("The webhook call failed because of invalid http response code: %d.", status)
	}
}

func (d *deliveries) once(item delivery, body []byte, exceeded bool) (int, error) {
	r, err := http.NewRequestWithContext(d.ctx, http.MethodPost, item.step.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	maps.Copy(r.Header, item.step.header)
	host := ""
	if u, err := url.Parse(d.s.BaseURL()); err == nil {
		host = u.Host
	}
	for name, v := range map[string]string{
		"Content-Type":                    "application/json",
		"X-Ms-Dynamics-Organization":      host,
		"X-Ms-Dynamics-Entity-Name":       item.message.table.Name,
		"X-Ms-Dynamics-Request-Name":      item.message.name,
		"X-Ms-Correlation-Request-Id":     correlation(item).String(),
		"X-Ms-Dynamics-Msg-Size-Exceeded": "true",
	} {
		if name != "X-Ms-Dynamics-Msg-Size-Exceeded" || exceeded {
			r.Header.Set(name, v)
		}
	}
	answer, err := d.client.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10)
	return answer.StatusCode, answer.Body.Close()
}

// WaitDeliveries returns once nothing waits to be posted to a webhook.
func (s *Server) WaitDeliveries(ctx context.Context) error {
	d := s.hooks.out
	d.mu.Lock()
	idle := d.idle
	d.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Deliveries tells what was posted to webhooks.
func (s *Server) Deliveries() Deliveries {
	d := s.hooks.out
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.counts
	out.Waiting = len(d.waiting) + d.workers
	return out
}

// Close ends the deliveries that are under way and gives up those that wait. Data can
// be read and saved afterwards.
func (s *Server) Close() {
	d := s.hooks.out
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.running.Wait()
	d.client.CloseIdleConnections()
}
