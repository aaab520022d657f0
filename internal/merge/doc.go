// Package merge decides. Given what each side says about one field or
// one membership, and what both last agreed on, it answers what has to be
// written where, and why. Every function is pure: no input or output, no clock,
// no chance; the same question always has the same answer, and asking again
// after the answer was carried out asks for nothing more.
package merge
