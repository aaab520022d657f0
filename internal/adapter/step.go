package adapter

// Step is one step of a connection test: what was tried, how it went, and what a
// person can do when it failed. It holds no secret.
type Step struct {
	Name   string `json:"name"`             // "Reach the API address"
	OK     bool   `json:"ok"`               // a test ends with the first step that is not
	Detail string `json:"detail,omitempty"` // what was found, or what went wrong
	Fix    string `json:"fix,omitempty"`    // what to do about a failure
}
