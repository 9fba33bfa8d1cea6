// Package systemd asks systemd to manage a process that another program has started, and
// writes to its journal.
//
// Only the systemd that is process 1 of the caller's pid namespace counts, because another
// one knows processes by other numbers. A container that has the host's /run, for example,
// has no systemd.
package systemd
