// Package transform turns values of CRM columns into values of data labels and
// back. The mappings of one table are checked and compiled once; the compiled
// plan then converts record after record without allocating for plain values. A
// value that does not fit is a problem with a reason, never a zero in its place.
package transform
