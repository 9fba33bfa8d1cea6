// Package confine removes the privileges and mounts that serving devices does not need.
// It also protects a server from the OOM killer, page faults, garbage collection and core
// dumps.
//
// A server's program inherits its privileges and mounts from the thread that executes it
// (OnThread). The program itself locks its memory and tunes Go's runtime.
package confine
