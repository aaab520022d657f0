// Package remote is how Lockstep talks to another company's HTTP API: one Client
// for each remote account, shared by everybody who calls that account.
//
// A call passes through a chain of http.RoundTrippers:
//
//	retry → auth → guard → pace → observe → transport
//
// retry repeats what may safely be repeated; auth adds the credential and renews
// it once after a 401; guard keeps the request, and with it the credential, on
// the configured origin and refuses redirects; pace holds the number of requests
// in flight and the pause that a Retry-After asks for; observe counts every
// attempt and logs it without any data; transport connects to public addresses
// over TLS only, unless an administrator named the host.
//
// Retry is outermost so that every attempt is paced, counted and signed anew.
// Nothing here reads an environment proxy: a proxy would resolve names beyond the
// reach of the address guard.
package remote
