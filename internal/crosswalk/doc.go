// Package crosswalk knows who is who: which CRM record belongs to which contact
// of the email platform, and the values both sides last agreed on. Links and list
// memberships are written as append-only batches, one payload for each stored
// blob, where a later entry replaces an earlier one; an index in memory finds the
// entries again. The package does no input or output: callers store payloads and
// fetch byte ranges of them.
//
// A payload is a frame: the letters "LK" for links or "LM" for members, a version
// byte, a body, and a trailer of the number of entries (4 bytes, little-endian)
// and the CRC-32C of everything before it (4 bytes, little-endian). The body of a
// link batch starts with its labels: their number, then each one's length and
// text. Entries follow, each with its length in front. Numbers are varints. A
// frame is accepted whole or not at all, so a torn or damaged one changes nothing.
package crosswalk
