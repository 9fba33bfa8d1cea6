// Package keysource reads the key of a transfer, or the passphrase of a LUKS volume,
// from where the user says: a file, a descriptor, the kernel's keyrings or the
// terminal.
//
// A key is never an argument and never in the environment, where others see it. It
// goes to the server through a pipe. A passphrase stays in this process: only the
// key of the volume goes to the server.
package keysource
