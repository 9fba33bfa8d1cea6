// Package ring provides the part of io_uring that a block server needs: set-up,
// submission, completion and registration, under liburing's names.
//
// # Memory
//
// A ring's queues and entries are in memory that is shared with the kernel,
// outside the Go heap. The ring reads words that the kernel writes (CQ tail, SQ
// head) with an acquire load, and writes words that the kernel reads (SQ tail,
// CQ head) with a release store. Memory that an entry points to must not move until its
// completion has been read, so it must be off-heap or pinned by the caller.
//
// # Threads
//
// A Ring has no lock: one goroutine uses it at a time. A ring made with
// Options.SingleIssuer belongs to the thread that made it, so its goroutine
// must call [runtime.LockOSThread] before [New]. When a thread ends, the kernel
// cancels the operations that the thread has in flight.
//
// # Limits
//
// The package has no polling modes, no provided buffers and no networking. It
// knows nothing of ublk: a command to a driver is an entry like any other
// ([SQE.PrepURingCmd]).
package ring
