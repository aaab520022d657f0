package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Names of the twins that a rule may be bound to.
const (
	Dataverse  = "dataverse"
	Dotdigital = "dotdigital"
	Entra      = "entra"
)

var twins = []string{Dataverse, Dotdigital, Entra}

// Transport kinds: what Middleware and Listener do to a connection or an answer.
const (
	// Refuse resets a connection before anything is read from it.
	Refuse = "refuse"
	// ResetBefore resets the connection once the request head has arrived; the
	// body is not read and nothing is applied.
	ResetBefore = "reset-before"
	// AckLost applies the call completely and resets the connection instead of
	// answering.
	AckLost = "ack-lost"
	// LateApply answers an error now and applies the call after args.delay.
	LateApply = "late-apply"
	// Hang reads the request and never answers.
	Hang = "hang"
	// SlowBody sends the answer at args.bytes_per_second.
	SlowBody = "slow-body"
	// Truncate cuts the answer's body after args.at bytes.
	Truncate = "truncate"
	// Garbage answers 200 with something that is not the answer.
	Garbage = "garbage"
	// Status answers args.code without applying the call.
	Status = "status"
	// RetryAfter rewrites the Retry-After header of 429 and 503 answers.
	RetryAfter = "retry-after"
	// ClockSkew shifts the Date header by args.skew.
	ClockSkew = "clock"
	// Huge streams args.bytes of valid-looking JSON.
	Huge = "huge"
)

// transport lists the transport kinds with the decoder that validates their args.
var transport = map[string]func(json.RawMessage) (any, error){
	Refuse:      decoder(noArgs{}),
	ResetBefore: decoder(noArgs{}),
	AckLost:     decoder(noArgs{}),
	LateApply:   decoder(lateArgs{Code: http.StatusServiceUnavailable, Delay: duration(100 * time.Millisecond), Clock: "real"}),
	Hang:        decoder(hangArgs{}),
	SlowBody:    decoder(slowArgs{BytesPerSecond: 1}),
	Truncate:    decoder(truncateArgs{}),
	Garbage:     decoder(garbageArgs{Variant: "html"}),
	Status:      decoder(statusArgs{Body: "json"}),
	RetryAfter:  decoder(retryArgs{}),
	ClockSkew:   decoder(clockArgs{}),
	Huge:        decoder(hugeArgs{Bytes: 5 << 30}),
}

// inside lists the kinds that a twin itself carries out, with the twins that do.
var inside = map[string][]string{
	"throttle":         {Dataverse, Dotdigital},
	"token-expire":     {Dataverse, Entra},
	"delta-expired":    {Dataverse},
	"metadata-change":  {Dataverse},
	"env-restore":      {Dataverse},
	"row-poison":       {Dataverse, Dotdigital},
	"bulk-partial":     {Dotdigital},
	"too-many-imports": {Dotdigital},
	"page-drift":       {Dataverse, Dotdigital},
	"page-dup":         {Dataverse, Dotdigital},
	"page-skip":        {Dataverse, Dotdigital},
	"reorder":          {Dotdigital},
}

// Kinds returns the names of all kinds in alphabetical order.
func Kinds() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for k := range maps.Keys(transport) {
			if !yield(k) {
				return
			}
		}
		for k := range maps.Keys(inside) {
			if !yield(k) {
				return
			}
		}
	})
}

// TwinsOf returns the twins that a kind exists on.
func TwinsOf(kind string) []string {
	if _, ok := transport[kind]; ok {
		return slices.Clone(twins)
	}
	return slices.Clone(inside[kind])
}

// validate reports the first thing that is wrong with f, naming the field, and
// returns the decoded args of a transport kind.
func validate(f Fault) (any, error) {
	decode, isTransport := transport[f.Kind]
	owners, isInside := inside[f.Kind]
	switch {
	case f.Kind == "":
		return nil, fmt.Errorf("kind is missing; one of %s", strings.Join(Kinds(), ", "))
	case !isTransport && !isInside:
		return nil, fmt.Errorf("kind %q is unknown; one of %s", f.Kind, strings.Join(Kinds(), ", "))
	case f.Twin != "" && !slices.Contains(twins, f.Twin):
		return nil, fmt.Errorf("twin %q is unknown; one of %s, or empty for all", f.Twin, strings.Join(twins, ", "))
	case isInside && f.Twin != "" && !slices.Contains(owners, f.Twin):
		return nil, fmt.Errorf("kind %q does not exist on twin %q, only on %s", f.Kind, f.Twin, strings.Join(owners, ", "))
	case !(f.Rate >= 0 && f.Rate <= 1):
		return nil, fmt.Errorf("rate is %v; a probability from 0 to 1", f.Rate)
	case f.Every < 0:
		return nil, fmt.Errorf("every is %d; 0 or more", f.Every)
	case f.After < 0:
		return nil, fmt.Errorf("after is %d; 0 or more", f.After)
	case f.Count < 0:
		return nil, fmt.Errorf("count is %d; 0 or more", f.Count)
	}
	if isTransport {
		return decode(f.Args)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(orEmpty(f.Args), &object); err != nil {
		return nil, errors.New("args is not a JSON object")
	}
	return nil, nil
}

type checker interface{ check() error }

// decoder returns a function that decodes args over the defaults and checks them.
func decoder[T checker](defaults T) func(json.RawMessage) (any, error) {
	return func(raw json.RawMessage) (any, error) {
		v := defaults
		d := json.NewDecoder(bytes.NewReader(orEmpty(raw)))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("args: %s", explain(err))
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, errors.New("args: something follows the object")
		}
		if err := v.check(); err != nil {
			return nil, err
		}
		return v, nil
	}
}

func orEmpty(raw json.RawMessage) json.RawMessage {
	if len(bytes.TrimSpace(raw)) == 0 || string(bytes.TrimSpace(raw)) == "null" {
		return json.RawMessage("{}")
	}
	return raw
}

func explain(err error) string {
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if te.Field == "" {
			return "not a JSON object"
		}
		return fmt.Sprintf("args.%s cannot be a %s", te.Field, te.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// duration is a Go duration in JSON, such as "1.5s".
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration such as \"1.5s\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"1.5s\"", s)
	}
	*d = duration(v)
	return nil
}

type noArgs struct{}

func (noArgs) check() error { return nil }

type lateArgs struct {
	Code  int      `json:"code"`
	Delay duration `json:"delay"`
	Clock string   `json:"clock"` // "real" or "twin"
}

func (a lateArgs) check() error {
	switch {
	case a.Code < 500 || a.Code > 599:
		return fmt.Errorf("args.code is %d; late-apply answers 500 to 599", a.Code)
	case a.Delay < 0:
		return fmt.Errorf("args.delay is %v; 0 or more", time.Duration(a.Delay))
	case a.Clock != "real" && a.Clock != "twin":
		return fmt.Errorf("args.clock is %q; real or twin", a.Clock)
	}
	return nil
}

type hangArgs struct {
	For duration `json:"for"`
}

func (a hangArgs) check() error {
	if a.For < 0 {
		return fmt.Errorf("args.for is %v; 0 (until the client leaves) or more", time.Duration(a.For))
	}
	return nil
}

type slowArgs struct {
	BytesPerSecond float64 `json:"bytes_per_second"`
}

func (a slowArgs) check() error {
	if !(a.BytesPerSecond > 0) {
		return fmt.Errorf("args.bytes_per_second is %v; more than 0", a.BytesPerSecond)
	}
	return nil
}

type truncateArgs struct {
	At         *int64 `json:"at"`          // bytes that are sent; absent means half of the body
	KeepLength bool   `json:"keep_length"` // announce the full length and break off
}

func (a truncateArgs) check() error {
	if a.At != nil && *a.At < 0 {
		return fmt.Errorf("args.at is %d; 0 or more bytes", *a.At)
	}
	return nil
}

var garbageVariants = []string{"html", "empty", "null", "array", "bom", "gzip-garbage", "wrong-type"}

type garbageArgs struct {
	Variant string `json:"variant"`
	Apply   bool   `json:"apply"` // apply the call before the garbage is answered
}

func (a garbageArgs) check() error {
	if !slices.Contains(garbageVariants, a.Variant) {
		return fmt.Errorf("args.variant is %q; one of %s", a.Variant, strings.Join(garbageVariants, ", "))
	}
	return nil
}

type statusArgs struct {
	Code    int               `json:"code"`
	Body    string            `json:"body"`    // "json", "html" or "empty"
	Content string            `json:"content"` // literal body; replaces the made one
	Headers map[string]string `json:"headers"`
}

func (a statusArgs) check() error {
	switch {
	case a.Code < 200 || a.Code > 599:
		return fmt.Errorf("args.code is %d; a status from 200 to 599 is required", a.Code)
	case a.Body != "json" && a.Body != "html" && a.Body != "empty":
		return fmt.Errorf("args.body is %q; json, html or empty", a.Body)
	}
	for k, v := range a.Headers {
		if k == "" || strings.ContainsAny(k, " \r\n:") || strings.ContainsAny(v, "\r\n") {
			return fmt.Errorf("args.headers has %q, which is no valid header", k)
		}
	}
	return nil
}

type retryArgs struct {
	Value *string `json:"value"` // literal header value; absent or null removes the header
	Code  int     `json:"code"`  // answer this status oneself; 0 only rewrites answers
}

func (a retryArgs) check() error {
	switch {
	case a.Code != 0 && a.Code != http.StatusTooManyRequests && a.Code != http.StatusServiceUnavailable:
		return fmt.Errorf("args.code is %d; 429, 503 or absent", a.Code)
	case a.Value != nil && strings.ContainsAny(*a.Value, "\r\n"):
		return errors.New("args.value holds a line break")
	}
	return nil
}

type clockArgs struct {
	Skew duration `json:"skew"`
}

func (a clockArgs) check() error {
	if a.Skew == 0 {
		return errors.New("args.skew is missing; a duration such as \"-1h\"")
	}
	return nil
}

type hugeArgs struct {
	Bytes int64 `json:"bytes"`
}

func (a hugeArgs) check() error {
	if a.Bytes <= 0 {
		return fmt.Errorf("args.bytes is %d; more than 0", a.Bytes)
	}
	return nil
}
