// Package adaptertest holds the conformance suites that every adapter passes:
// CRM and Platform check, sentence by sentence, what the two ports promise to the
// engine. An adapter's own tests call them with its twin on the other side.
package adaptertest
