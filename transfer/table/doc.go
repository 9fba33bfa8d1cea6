// Package table reads, checks and prints device-mapper tables: the lines of
// dmsetup(8), and its concise format for a stack of named tables. It opens
// nothing. docs/tables.md defines the text and the targets.
//
// # Stacks
//
// A [Stack] is a sequence of tables. A table uses files, disks, and tables
// before it. The last table is the device. [Parse] returns only stacks that
// are consistent in themselves; [Stack.CheckDevices] checks a stack against
// the sizes and block sizes of its devices.
//
// # Hostile input
//
// The text can come from anyone. Time and memory are proportional to its
// length, which has a limit, as have the number of tables and lines and the
// depth of a stack. An error quotes at most one argument, escaped and
// truncated, and never a key.
//
// # Keys
//
// A key in hexadecimal digits goes to a [transfer.Secret]. Printing never
// shows it. The caller wipes the text.
package table
