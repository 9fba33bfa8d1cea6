// Package keysource reads the key of a transfer, or the passphrase of a LUKS volume, from
// a file, a descriptor, the kernel's keyrings or the terminal.
//
// A key is never an argument or in the environment, where other users could see it. It
// goes to the server through a pipe. A passphrase stays in this process: the server gets
// only the key of the volume.
package keysource
