// Package ublk makes block devices that this process serves, through Linux's
// ublk driver. It knows nothing of what is behind a device.
//
// [Serve] makes a device and serves it. What answers its requests is a [Target]:
// a [Disk] over an io.ReaderAt, or a [Handler] of one's own. A handler copies bytes
// ([Request.Data]), has the kernel read or write a file ([Request.Forward]), or
// gives requests to other goroutines ([Request.Async]).
//
// # Protocol
//
// Commands to /dev/ublk-control ([Control]) add, describe, start, stop and
// delete device N. Adding it makes /dev/ublkcN, which one process opens to
// serve it. Each queue of the device has an array of I/O descriptors, mapped
// from /dev/ublkcN, one for each tag. The server sends a fetch command for
// every tag; the driver completes it when a request has come for the tag, whose
// descriptor it has filled. The server answers with a command that commits the
// result and fetches again. Once all tags are fetched the device is started
// and /dev/ublkbN appears. Stopping it flushes and removes /dev/ublkbN, then
// ends every fetch with ENODEV: so the end of the last fetch is the end of a
// queue, and nothing needs to be waited for by time.
//
// A device with UBLK_F_USER_RECOVERY outlives its server: its disk stays, and
// another process takes it over ([Control.Recover]), with the same queues, tags
// and features.
//
// # Threads
//
// A queue is served by one goroutine on one locked thread with one ring, since
// the driver binds a tag to the task that fetched it: its own thread, or one of
// several queues ([Threads]). Handlers run there. There is no lock, no allocation
// and no other goroutine between a request and its result, except for Async.
// [Control] may be used by any number of goroutines. Each queue's thread needs one of
// Go's processors: GOMAXPROCS should exceed their number.
//
// # Limits
//
// Sizes are in bytes unless the name says sectors, which are 512 bytes whatever
// the device's logical block size is. The package serves privileged devices only,
// and neither zoned devices nor integrity data.
package ublk
