// Package cowfile works on stores of copy-on-write that no device has: it makes them,
// describes them, lists what they change, and merges them into their base. docs/cow.md
// describes the files.
//
// Files and disks are opened once, by path, and then used by descriptor. Each function
// except Inspect locks them against the servers of devices (package filelock), which needs
// root.
package cowfile
