package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/lockstep-sync/lockstep"
)

// guard lets a request pass only to the configured origin and turns redirects
// into errors, so that a credential never travels anywhere else.
type guard struct {
	client *Client
	next   http.RoundTripper
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if !sameOrigin(req.URL, g.client.o.Base) {
		return nil, refused("a request to another server than the configured one was stopped", "")
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified {
		_ = resp.Body.Close()
		return nil, &lockstep.Error{
			Code: lockstep.CodeUnavailable, Scope: lockstep.ScopeConnection,
			Msg:  fmt.Sprintf("the server answered with a redirect (%d), which is not followed", resp.StatusCode),
			Hint: "enter the address that the API itself answers on, not one that forwards to it",
		}
	}
	return resp, nil
}

func refused(msg, hint string) *lockstep.Error {
	return &lockstep.Error{Code: lockstep.CodeGuarded, Scope: lockstep.ScopeConnection, Msg: msg, Hint: hint}
}

const allowHint = "an administrator can allow this one host by name if it really is meant"

// CheckURL says whether a server may be called at an address that somebody
// typed: https, port 443, a public host name or address, no user name in it. A
// host that allow names ("host" for the standard ports, or "host:port") may use
// http and be internal. Names are not resolved here; the addresses that they
// resolve to are checked when a connection is made.
func CheckURL(raw string, allow []string) error {
	if strings.ContainsAny(raw, "\\ \t\r\n") || strings.ContainsFunc(raw, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return refused("the address contains a character that does not belong there", "")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return refused("this is not a web address", "give it like https://contoso.crm4.dynamics.com")
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return refused("the address must begin with https://", "")
	}
	if u.User != nil {
		return refused("the address must not contain a user name", "")
	}
	if allowed(u.Hostname(), portOf(u), allow) {
		return nil
	}
	if u.Scheme != "https" {
		return refused("the address must begin with https://", allowHint)
	}
	if p := u.Port(); p != "" && p != "443" {
		return refused("only port 443 may be called", allowHint)
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); err == nil {
		if !isPublic(ip) {
			return refused("the address is an internal one", allowHint)
		}
		return nil
	}
	return checkName(host)
}

func checkName(host string) error {
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return refused("the host is not a public name", allowHint)
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return refused("the host is not a public name", allowHint)
		}
		for i := range len(l) {
			if c := l[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return refused("the host name contains a character other than letters, digits and hyphens", "write international names in their xn-- form")
			}
		}
	}
	// No public top-level domain begins with a digit: such a name is an address
	// in a spelling (127.1, 0177.0.0.1) that resolvers disagree about.
	if c := labels[len(labels)-1][0]; c >= '0' && c <= '9' {
		return refused("the host is an address in an unusual spelling", "")
	}
	return nil
}

// allowed reports whether an administrator named this host and port.
func allowed(host, port string, allow []string) bool {
	host = strings.ToLower(host)
	return slices.ContainsFunc(allow, func(a string) bool {
		a = strings.ToLower(strings.TrimSpace(a))
		if h, p, err := net.SplitHostPort(a); err == nil {
			return h == host && p == port
		}
		return strings.Trim(a, "[]") == host && (port == "443" || port == "80")
	})
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || host == "localhost"
}

// notPublic are the special-purpose ranges of the IANA registries that netip has
// no predicate for, among them those that carry an IPv4 address inside.
var notPublic = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

func isPublic(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	ip = ip.Unmap()
	if !ip.IsValid() || ip.IsLoopback() || ip.IsPrivate() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip.IsInterfaceLocalMulticast() {
		return false
	}
	return !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// NewTransport returns a transport that connects to public addresses on port 443
// only, judged by the address that is dialled, so that a name which resolves
// differently a moment later gains nothing. Hosts in allow are exempt.
func NewTransport(l Limits, allow []string) *http.Transport {
	l = l.withDefaults()
	open := &net.Dialer{Timeout: l.Connect}
	guarded := &net.Dialer{Timeout: l.Connect, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !isPublic(ap.Addr()) || ap.Port() != 443 {
			return refused("the name leads to an internal address", allowHint)
		}
		return nil
	}}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err == nil && allowed(host, port, allow) {
				return open.DialContext(ctx, network, addr)
			}
			return guarded.DialContext(ctx, network, addr)
		},
		TLSHandshakeTimeout:   l.Connect,
		ResponseHeaderTimeout: l.Header,
		ExpectContinueTimeout: l.Connect,
		IdleConnTimeout:       l.Header,
		MaxIdleConns:          0,
		MaxIdleConnsPerHost:   64,
		// Inflating is done in one place that also counts what comes out.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 1 << 20,
		// Several HTTP/1.1 connections spread over the servers behind one name;
		// one HTTP/2 connection would stay with a single server and its budget.
		ForceAttemptHTTP2: false,
	}
}
