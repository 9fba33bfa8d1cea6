// Package ring drives io_uring, as much of it as a block server needs: set-up,
// submission, completion and registration, under liburing's names.
//
// # Memory
//
// A ring's queues and entries live in memory that the kernel shares with us,
// outside the Go heap. Words that the kernel writes are read with an acquire
// load, once a turn (CQ tail, SQ head); words that it reads are written with a
// release store (SQ tail, CQ head). Fields that hold such a word start with k.
// Whatever an entry points at must stay where it is until its completion has
// been seen: off-heap memory, or memory that the caller keeps pinned.
//
// # Threads
//
// A Ring has no lock: one goroutine uses it at a time. A ring made with
// Options.SingleIssuer belongs to the thread that made it, so its goroutine
// has called [runtime.LockOSThread] before [New]. The kernel cancels what a
// thread has in flight when that thread ends.
//
// # What it leaves out
//
// No polling modes, no provided buffers, no networking. It knows nothing of
// ublk: a command to a driver is an entry like any other ([SQE.PrepURingCmd]).
package ring
