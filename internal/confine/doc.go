// Package confine takes from a process what serving devices does not need, and
// protects it from what would stop it: privileges, mounts, the OOM killer, page
// faults, garbage collection and core dumps.
//
// A server's program inherits its privileges and mounts from the thread that
// executes it (OnThread). The program itself locks its memory and tunes Go's
// runtime.
package confine
