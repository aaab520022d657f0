package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	sessionLife = 12 * time.Hour
	sessionIdle = 30 * time.Minute
	maxSessions = 1000

	maxTries  = 5
	tryWindow = 15 * time.Minute
	// maxNames bounds what failed sign-ins can make us remember.
	maxNames = 10_000
)

type session struct {
	user          string
	started, seen time.Time
}

// sessions are the signed-in browsers of this process. The map's keys are hashes of
// the cookies, so that a dump of the memory does not sign anybody in.
type sessions struct {
	mu   sync.Mutex
	now  func() time.Time
	open map[[sha256.Size]byte]*session
	// tries are the times of failed sign-ins by the name that was typed, hashed.
	tries map[[sha256.Size]byte][]time.Time
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, open: map[[sha256.Size]byte]*session{}, tries: map[[sha256.Size]byte][]time.Time{}}
}

// start opens a session and returns its cookie value.
func (s *sessions) start(user string) string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails since Go 1.24
	value := base64.RawURLEncoding.EncodeToString(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	var stalest [sha256.Size]byte
	for key, one := range s.open {
		if !one.alive(now) {
			delete(s.open, key)
		} else if old := s.open[stalest]; old == nil || one.seen.Before(old.seen) {
			stalest = key
		}
	}
	if len(s.open) >= maxSessions {
		delete(s.open, stalest)
	}
	s.open[sha256.Sum256([]byte(value))] = &session{user: user, started: now, seen: now}
	return value
}

func (s *session) alive(now time.Time) bool {
	return now.Sub(s.started) < sessionLife && now.Sub(s.seen) < sessionIdle
}

// user returns who is signed in with this cookie value; active counts as use.
func (s *sessions) user(value string, active bool) (string, bool) {
	key := sha256.Sum256([]byte(value))
	s.mu.Lock()
	defer s.mu.Unlock()
	one, now := s.open[key], s.now()
	if one == nil || !one.alive(now) {
		delete(s.open, key)
		return "", false
	}
	if active {
		one.seen = now
	}
	return one.user, true
}

func (s *sessions) end(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, sha256.Sum256([]byte(value)))
}

func nameKey(user string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.ToLower(strings.TrimSpace(user))))
}

// try counts a sign-in of this name before its password is checked. wait is how long
// the name has to wait; 0 = the password may be checked.
func (s *sessions) try(user string) (wait time.Duration) {
	key := nameKey(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(s.tries) >= maxNames {
		for k, times := range s.tries {
			if now.Sub(times[len(times)-1]) >= tryWindow {
				delete(s.tries, k)
			}
		}
		if len(s.tries) >= maxNames && s.tries[key] == nil {
			return tryWindow
		}
	}
	recent := s.tries[key]
	for len(recent) > 0 && now.Sub(recent[0]) >= tryWindow {
		recent = recent[1:]
	}
	if len(recent) >= maxTries {
		return recent[0].Add(tryWindow).Sub(now)
	}
	s.tries[key] = append(recent, now)
	return 0
}

// forgive forgets the tries of a name that has signed in.
func (s *sessions) forgive(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tries, nameKey(user))
}

// cookie makes the session cookie; an empty value deletes it. The __Host- prefix
// keeps other hosts of the same domain from setting it, and needs HTTPS.
func (p *pages) cookie(r *http.Request, value string) *http.Cookie {
	//nolint:gosec // it is Secure wherever the browser speaks TLS; on a loopback address there may be none
	c := &http.Cookie{Name: p.cookieName(r), Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: overTLS(p.options, r)}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

func (p *pages) cookieName(r *http.Request) string {
	if overTLS(p.options, r) {
		return "__Host-lockstep"
	}
	return "lockstep"
}

type userKey struct{}

func userOf(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// signedIn lets only people who have signed in reach next.
func (p *pages) signedIn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		live := strings.HasPrefix(r.URL.Path, "/events/")
		if c, err := r.Cookie(p.cookieName(r)); err == nil {
			// A page that is left open must not keep its session alive by itself.
			if user, ok := p.sessions.user(c.Value, !live); ok {
				inner := r.WithContext(context.WithValue(r.Context(), userKey{}, user))
				next(w, inner)
				return
			}
		}
		if live {
			plain(w, http.StatusUnauthorized, "sign in first\n")
			return
		}
		to := "/signin"
		if r.Method == http.MethodGet && r.URL.Path != "/" {
			to += "?next=" + url.QueryEscape(r.URL.Path)
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	}
}

// localPath returns a path of ours to go to after sign-in; anything else is "/".
func localPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t?#") {
		return "/"
	}
	return next
}
