package fault

import (
	"net"
	"sync"
)

// Listener wraps a twin's listener so that a "refuse" rule without an operation
// resets connections when they are accepted, before anything is read. Without
// it such a rule acts in Middleware, after the request head was read.
func Listener(l net.Listener, s *Set, twin string) net.Listener {
	return &listener{Listener: l, set: s, twin: twin}
}

type listener struct {
	net.Listener
	set  *Set
	twin string
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.set.refuses(l.twin) {
			reset(c)
			continue
		}
		if l.set.idle.Load() {
			return c, nil
		}
		key := freshKey(l.twin, c.RemoteAddr().String())
		l.set.fresh.Store(key, struct{}{})
		return &conn{Conn: c, forget: sync.OnceFunc(func() { l.set.fresh.Delete(key) })}, nil
	}
}

func freshKey(twin, remote string) string { return twin + " " + remote }

// conn forgets that its connection was judged when it ends unused.
type conn struct {
	net.Conn
	forget func()
}

func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// NetConn returns the wrapped connection.
func (c *conn) NetConn() net.Conn { return c.Conn }

// reset ends c with a TCP reset: with linger 0 the kernel drops what was not
// sent and answers with RST instead of FIN.
func reset(c net.Conn) {
	for inner := c; ; {
		if tcp, ok := inner.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			break
		}
		w, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = w.NetConn()
	}
	_ = c.Close()
}
