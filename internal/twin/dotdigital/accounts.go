package dotdigital

import "net/http"

// Choose serves several accounts under one address, as the service does: the user
// name of a call's credentials decides which one it is for. A call without one, or
// with a name that nobody has, is refused by the first.
func Choose(accounts ...*Server) http.Handler {
	handlers := make([]http.Handler, len(accounts))
	byUser := map[string]int{}
	for k, a := range accounts {
		handlers[k] = a.Handler()
		for name := range a.users {
			byUser[name] = k
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := r.BasicAuth()
		handlers[byUser[name]].ServeHTTP(w, r)
	})
}

// AccountID is the id that account-info tells.
func (s *Server) AccountID() int32 { return s.opt.AccountID }
