package webapi

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/remote"
)

// part is one operation of a $batch.
type part struct {
	method, target string
	prefer         string
	ifMatch        string // what the row's entity tag has to be; "*" = any, "" = the row may be missing
	body           []byte
}

// partAnswer is the answer to one part: its body, or why it was refused.
type partAnswer struct {
	body string
	err  *lockstep.Error
}

// batch sends operations in one request; they are carried out in order, each for
// itself. There is one answer for each part. Everything that is sent this way can
// be repeated, so a broken call is.
func (c *Client) batch(ctx context.Context, op string, parts []part) ([]partAnswer, error) {
	api, err := c.api(ctx)
	if err != nil {
		return nil, err
	}
	boundary := "batch_" + rand.Text()
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n")
		b.WriteString(p.method + " " + c.root + p.target + " HTTP/1.1\r\nAccept: application/json\r\n")
		if p.prefer != "" {
			b.WriteString("Prefer: " + p.prefer + "\r\n")
		}
		if p.ifMatch != "" {
			b.WriteString("If-Match: " + p.ifMatch + "\r\n")
		}
		if p.body != nil {
			b.WriteString("Content-Type: application/json; type=entry\r\n\r\n")
			b.Write(p.body)
		} else {
			b.WriteString("\r\n")
		}
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "--\r\n")
	text, h, err := c.fetch(ctx, request{
		op: op, method: http.MethodPost, target: api + "$batch", route: "/$batch", prefer: "odata.continue-on-error",
		body: []byte(b.String()), contentType: `multipart/mixed; boundary="` + boundary + `"`, repeatable: true, rows: len(parts),
	})
	if err != nil {
		return nil, err
	}
	answers, err := readBatch(text, h, op)
	if err != nil || len(answers) != len(parts) {
		e := garbled(op)
		e.Unknown = true
		return nil, e
	}
	return answers, nil
}

func readBatch(text string, h http.Header, op string) ([]partAnswer, error) {
	mt, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || mt != "multipart/mixed" {
		return nil, errors.New("no multipart answer")
	}
	var answers []partAnswer
	for r := multipart.NewReader(strings.NewReader(text), params["boundary"]); ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return answers, nil
		}
		if err != nil || len(answers) >= 1000 {
			return nil, errors.New("damaged multipart answer")
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(p, 64<<10), nil)
		if err != nil {
			return nil, err
		}
		// A part without Content-Length ends with its part.
		var body strings.Builder
		if resp.StatusCode != http.StatusNoContent {
			if _, err := io.Copy(&body, resp.Body); err != nil {
				return nil, err
			}
		}
		_ = resp.Body.Close()
		a := partAnswer{body: strings.TrimRight(body.String(), "\r\n")}
		if resp.StatusCode >= 400 {
			a.err = refusal(resp.StatusCode, a.body)
			a.err.Op, a.body = "dynamics: "+op, ""
			if d, ok := remote.RetryAfter(resp.Header, time.Now()); ok && a.err.Code == lockstep.CodeThrottled {
				a.err.After = d
			}
		}
		answers = append(answers, a)
	}
}
