// Package luks reads LUKS1 and LUKS2 headers and unlocks the key of the volume
// that they describe. It opens no device and writes nothing: it takes an
// io.ReaderAt, and what it returns is what an aes-xts-plain64 transfer needs.
//
// It follows the LUKS On-Disk Format Specification 1.2.3 ("LUKS1") and the
// LUKS2 On-Disk Format Specification 1.1.1 ("LUKS2"), and cryptsetup where
// these leave a choice. Sections are cited as "LUKS2 3.2".
//
// # What it opens
//
// Volumes with one data segment, encrypted as aes-xts-plain64 with a key of
// 256 or 512 bits, unlocked by a passphrase through pbkdf2, argon2i or
// argon2id. Everything else is refused with an error that names it: other
// ciphers, integrity, reencryption under way, detached headers, requirements
// that this package does not know. Tokens are ignored.
//
// # Hostile headers
//
// A header is input that anybody may have written. Every size and offset in it
// is checked against the others and against the device before it is used;
// memory is bounded by the largest header that the specification allows
// (4 MiB), and the cost of unlocking by Limits.
//
// # Secrets
//
// The volume key is only ever written to memory of the caller's. Derived keys
// and key material are wiped before Unlock returns, and no error's text holds
// any of them. What cannot be wiped from here is what others keep on the Go
// heap: argon2's blocks, the key schedules of crypto/aes, the states of hashes,
// and the copies of the passphrase and of the volume key that crypto/pbkdf2
// makes. A process that unlocks and exits, or one whose memory holds the same
// key for the length of a mapping anyhow, loses nothing by it; a process with
// more to hide unlocks in a child.
package luks
