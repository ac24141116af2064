// Package engine is the PDP: it parses, validates, compiles and decides. It is pure: no I/O, clock,
// context or goroutine.
package engine
