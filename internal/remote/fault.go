package remote

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/lockstep-sync/lockstep"
)

// fault makes a *lockstep.Error of what went wrong on the way. The text of the
// cause is not taken over: it holds the address with its query.
func (c *Client) fault(st *callState, err error) error {
	e := describe(err, c.o.Title, c.o.Limits)
	if st.base.Err() != nil && e.Code != lockstep.CodeThrottled {
		e = &lockstep.Error{Code: lockstep.CodeCancelled, Msg: "the call was cancelled", Scope: lockstep.ScopeConnection, Err: st.base.Err()}
		if errors.Is(st.base.Err(), context.DeadlineExceeded) {
			e.Code, e.Msg = lockstep.CodeUnavailable, c.o.Title+" did not answer in the time that this call may take"
		}
	}
	if e.Op == "" {
		e.Op = c.op(st.call)
	}
	if m := st.call.Method; m != http.MethodGet && m != http.MethodHead && maybeSent(st, err) && e.Code != lockstep.CodeThrottled {
		e.Unknown = true
	}
	return e
}

func faultCode(err error) lockstep.Code { return describe(err, "", Limits{}).Code }

// Fault describes a transport error in words for people, for callers that use
// NewTransport without a Client. title names the other side.
func Fault(err error, title string, l Limits) *lockstep.Error {
	return describe(err, title, l.withDefaults())
}

func describe(err error, title string, l Limits) *lockstep.Error {
	if known, ok := errors.AsType[*lockstep.Error](err); ok {
		e := *known
		return &e
	}
	e := &lockstep.Error{Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection}
	var (
		dns      *net.DNSError
		op       *net.OpError
		netErr   net.Error
		tooLarge tooLargeError
		unknown  x509.UnknownAuthorityError
		wrongHst x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		inflate  flate.CorruptInputError
	)
	switch {
	case errors.Is(err, context.Canceled):
		e.Code, e.Msg, e.Err = lockstep.CodeCancelled, "the call was cancelled", context.Canceled
	case errors.Is(err, errSlow):
		e.Msg = fmt.Sprintf("%s stopped sending its answer for %s", title, l.Progress)
	case errors.Is(err, errLate):
		e.Msg = fmt.Sprintf("%s did not finish its answer within %s", title, l.Total)
	case errors.As(err, &tooLarge):
		e.Msg, e.Hint, e.Err = title+" sent an answer that is too large: "+tooLarge.Error(), "check what answers in its place, a proxy for example; if it is "+title+" itself, read fewer columns at once", tooLarge
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &inflate):
		e.Msg, e.Hint = title+" sent a compressed answer that cannot be read", "something between Lockstep and "+title+" damages answers"
	case errors.As(err, &dns):
		e.Msg, e.Hint = "the host name cannot be found", "check the address for a typing mistake"
	case errors.As(err, &unknown), errors.As(err, &wrongHst), errors.As(err, &invalid), errors.As(err, &verify):
		e.Msg, e.Hint = "the certificate of the server is not trusted", "check the address; an internal server needs its certificate authority installed on this machine"
	case errors.As(err, &record):
		e.Msg, e.Hint = "the server does not speak TLS on this port", "check whether the address should begin with http://"
	case errors.As(err, &netErr) && netErr.Timeout():
		e.Msg = title + " did not answer in time"
		if errors.As(err, &op) && op.Op == "dial" {
			e.Msg, e.Hint = "the server cannot be reached: no answer to the connection attempt", "check the address and the firewall"
		}
	case errors.As(err, &op) && op.Op == "dial":
		e.Msg, e.Hint = "the server cannot be reached: the connection was refused", "check the address and whether the server runs"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Msg = "the connection broke before the answer was complete"
	default:
		e.Msg = "the connection broke"
	}
	return e
}
