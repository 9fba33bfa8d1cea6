// Package ublk makes block devices that this process serves, through Linux's ublk driver.
// It does not know what is behind a device.
//
// [Serve] makes a device and serves it. A [Target] answers its requests: a [Disk] over an
// io.ReaderAt, or a target of your own with a [Handler] for each queue. A handler copies
// bytes ([Request.Data]), makes the kernel read or write a file ([Request.Forward]), or
// gives requests to other goroutines ([Request.Async]).
//
// # Protocol
//
// Commands to /dev/ublk-control ([Control]) add, describe, start, stop and delete device N.
// Adding a device makes /dev/ublkcN. One process, the server, opens it. Each queue of the
// device has an array of I/O descriptors, one for each tag, which the server maps from
// /dev/ublkcN. The server sends a fetch command for every tag. When a request comes, the
// driver fills the descriptor of a tag and completes the tag's fetch. The server answers
// with a command that commits the result and fetches again. When all tags are fetched, the
// driver can start the device, which makes /dev/ublkbN. A stop flushes and removes
// /dev/ublkbN, and then ends every fetch with ENODEV. A queue has ended when its last fetch
// has ended: the server waits for that event, and never for a fixed time.
//
// A device with UBLK_F_USER_RECOVERY outlives its server. Its disk stays, and another
// process takes it over ([Control.Recover]) with the same queues, tags and features.
//
// # Threads
//
// The driver binds a tag to the thread that fetched it. So one goroutine serves a queue, on a
// locked thread with one ring. Each queue has a thread of its own, unless [Threads] lets
// several queues share one.
// Handlers run on that thread. Between a request and its result there is no lock, no
// allocation and no other goroutine, except for Async. Any number of goroutines may use a
// [Control]. Each thread needs one of Go's processors, so GOMAXPROCS should exceed the
// number of threads.
//
// # Limits
//
// Sizes are in bytes, unless the name says sectors. A sector is 512 bytes, whatever the
// logical block size of the device. The package serves privileged devices only. It supports
// neither zoned devices nor integrity data.
package ublk
