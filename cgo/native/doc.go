// Package native implements the interfaces of package cgo on libbarkrt. It is the only package that imports "C".
//
// Ownership. Every Go object owns one native handle. Close frees it exactly once; a Close while calls run on the
// object returns at once, later calls get cgo.ErrClosed, and the last running call frees the handle. So Close is
// safe at any time and from anywhere, a Sink included, and never waits. An object that is dropped without Close is
// freed by a cleanup that logs the mistake.
//
// Calls. Go memory is passed to C for the length of a call only. Callbacks reach Go through exported functions
// that find their receiver by a runtime/cgo.Handle; a panic inside one stops the native call and goes on after it
// has returned.
package native
