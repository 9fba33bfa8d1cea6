// Package luks reads LUKS1 and LUKS2 headers and unlocks the volume key. It
// opens no device and writes nothing. It reads from an io.ReaderAt and returns
// the parameters of an aes-xts-plain64 or aes-xts-plain transfer.
//
// It follows the LUKS On-Disk Format Specification 1.2.3 ("LUKS1") and the
// LUKS2 On-Disk Format Specification 1.1.1 ("LUKS2"), and cryptsetup where
// these leave a choice. Sections are cited as "LUKS2 3.2".
//
// # Supported volumes
//
// The package opens volumes with one data segment, encrypted as aes-xts-plain64
// or aes-xts-plain, with a key of 256 or 512 bits. A passphrase unlocks the key through pbkdf2,
// argon2i or argon2id. The package refuses everything else with an error that
// names it: other ciphers, integrity, unfinished reencryption, unknown
// requirements. A detached header needs ReadDetached. It uses no tokens.
//
// # Hostile headers
//
// Anyone can write a header. The package checks every size and offset against
// the others and against the device before it uses them. It refuses what the
// specification forbids also in objects that it does not use. Memory is limited by
// the largest header that the specification allows (4 MiB), and the cost of
// unlocking by Limits.
//
// # Secrets
//
// The package writes the volume key only to memory of the caller. It wipes
// derived keys and key material before Unlock returns, and no error text
// contains them. It cannot wipe what other packages keep on the Go heap:
// argon2's blocks, the key schedules of crypto/aes, the states of hashes, and
// the copies of the passphrase and of the volume key that crypto/pbkdf2 makes.
// This does not matter for a process that unlocks and exits, or whose memory
// contains the same key while a mapping exists. A process with other secrets
// to protect must unlock in a child process.
package luks
