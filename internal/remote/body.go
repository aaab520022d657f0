package remote

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errSlow and errLate are the causes with which an attempt's context ends.
var (
	errSlow = errors.New("the answer stopped arriving")
	errLate = errors.New("the call took too long")
)

// errTooLarge reports an answer above the cap.
type tooLargeError int64

func (e tooLargeError) Error() string {
	return fmt.Sprintf("more than %d MB", int64(e)>>20)
}

// openBody inflates and caps an answer. The length is -1 when it is not known.
func openBody(resp *http.Response, limit int64) (io.ReadCloser, int64, error) {
	switch enc := resp.Header.Get("Content-Encoding"); enc {
	case "", "identity":
		if resp.ContentLength > limit {
			_ = resp.Body.Close()
			return nil, 0, tooLargeError(limit)
		}
		return &capped{r: resp.Body, c: resp.Body, left: limit, limit: limit}, resp.ContentLength, nil
	case "gzip":
		return &capped{r: &inflater{src: resp.Body}, c: resp.Body, left: limit, limit: limit}, -1, nil
	default:
		_ = resp.Body.Close()
		return nil, 0, errors.New("the answer is encoded in a way that was not asked for")
	}
}

// inflater opens the gzip stream at the first read, so that an empty body with a
// gzip header is an error of reading and not of the call.
type inflater struct {
	src  io.Reader
	open *gunzip
	done bool
}

// gunzip is a decompressor with what it reads from; together they are 110 KB.
type gunzip struct {
	in *bufio.Reader
	z  gzip.Reader
}

var gunzips = sync.Pool{New: func() any { return &gunzip{in: bufio.NewReaderSize(nil, 64<<10)} }}

func (i *inflater) Read(p []byte) (int, error) {
	if i.done {
		return 0, io.EOF
	}
	if i.open == nil {
		g := gunzips.Get().(*gunzip)
		g.in.Reset(i.src)
		if err := g.z.Reset(g.in); err != nil {
			return 0, err
		}
		i.open = g
	}
	n, err := i.open.z.Read(p)
	if errors.Is(err, io.EOF) {
		i.open.in.Reset(nil)
		gunzips.Put(i.open)
		i.open, i.done = nil, true
	}
	return n, err
}

// capped ends with an error once more than limit bytes came out.
type capped struct {
	r           io.Reader
	c           io.Closer
	left, limit int64
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if int64(n) > c.left {
		n = int(c.left)
		c.left = 0
		return n, tooLargeError(c.limit)
	}
	c.left -= int64(n)
	return n, err
}

func (c *capped) Close() error { return c.c.Close() }

// timedBody gives up when no byte arrives for the limit. The clock runs only
// while somebody waits in Read: a slow consumer is not a slow server.
type timedBody struct {
	io.ReadCloser
	ctx      context.Context //nolint:containedctx // the attempt's own context, ended with the body
	cancel   context.CancelCauseFunc
	progress time.Duration
	stall    *time.Timer
	total    *time.Timer
	closed   atomic.Bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.stall == nil {
		b.stall = time.AfterFunc(b.progress, func() { b.cancel(errSlow) })
	} else {
		b.stall.Reset(b.progress)
	}
	n, err := b.ReadCloser.Read(p)
	b.stall.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (b *timedBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.total.Stop()
	if b.stall != nil {
		b.stall.Stop()
	}
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
