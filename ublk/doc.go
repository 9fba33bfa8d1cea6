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
// An added device has /dev/ublkcN, which one process opens to serve it. Each queue of the
// device has an array of I/O descriptors, one for each tag, which the server maps from
// /dev/ublkcN. The server sends a fetch command for every tag. When a request comes, the
// driver fills the descriptor of a tag and completes the tag's fetch. The server answers
// with a command that commits the result and fetches again. When all tags are fetched, the
// start of the device makes /dev/ublkbN. The stop flushes and removes /dev/ublkbN, and then
// ends every fetch with ENODEV. The end of the last fetch is the end of a queue, so the
// server never waits for a fixed time.
//
// A device with UBLK_F_USER_RECOVERY outlives its server. Its disk stays, and another
// process takes it over ([Control.Recover]) with the same queues, tags and features.
//
// # Threads
//
// One goroutine on one locked thread with one ring serves a queue, because the driver binds
// a tag to the task that fetched it. Several queues can share a thread ([Threads]).
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
