// Package consent is the form in which the consent ledger is kept, and the check
// that nobody changed it. It does no input or output: callers store rows and hand
// them over for verification one by one.
//
// A row has a content and a person. The content says what was stated: its place in
// the chain, the hash of the row before, the keys, the times, and a commitment to
// the person. Its hash, SHA-256, is the row's hash. The person holds every value
// that names somebody (address, record, contact, actor, evidence) behind a random
// nonce of 16 bytes; the commitment is the SHA-256 of that. Erasing somebody empties
// the person and leaves the content as it is, so the chain still holds, and without
// the nonce nothing can be guessed from the commitment.
//
// Three things make a change visible: each row's hash, each content's mention of the
// hash before it, and the head, kept apart from the rows, which knows the number and
// the hash of the last one. A person may be empty only when an entry of ActErased
// with the same address key stands in the chain, so that blanking a row is no way to
// hide it.
//
// What a chain cannot show by itself is that somebody with full access to the
// database wrote all of it anew, head included. Compare a head noted earlier.
//
// Content, integers big-endian unless said otherwise:
//
//	'C' version(1)
//	seq(8) previous hash(32) commitment(32)
//	id(16) address key(16) about(16)
//	at(8) seen(8)                  microseconds since 1970, 0 = unknown
//	reason(1) opt-in type(1)
//	account, act, scope, object, system, target, run: each length (unsigned varint) and bytes
//
// Person:
//
//	nonce(16) record id(16)
//	record table, address, contact, actor, evidence: each length and bytes
package consent
