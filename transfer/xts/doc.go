// Package xts implements XTS-AES (IEEE 1619-2018) as dm-crypt's aes-xts-plain64
// uses it, in place, with the processor's AES instructions.
//
// # Algorithm
//
// A sector is a data unit of the standard, without ciphertext stealing. Its
// tweak is its iv: 16 bytes, of which the lower eight hold the iv number in
// little-endian order and the upper eight are zero. dm-crypt calls this plain64.
// The caller's choice of iv and step determines whether ivs count units of 512
// bytes or sectors. dm-crypt counts 512 bytes (iv = offset/512, step =
// sectorSize/512) unless iv_large_sectors is set.
//
// # Location of keys
//
// With AES instructions, all key material is in the memory that the caller gave
// to [New]. The round keys are read from there. The encrypted tweaks are on the
// stack during a call. Before a call returns, it zeroes the keys and tweaks in
// the vector registers and on the stack. The package cannot control one copy:
// if a signal arrives during a call, for example the Go runtime's signal to
// preempt, the kernel saves the registers, including round keys, on a signal
// stack of the Go runtime. A thread that blocks signals, as those of package ublk do, has no such copy.
//
// Without AES instructions ([Implementation] is "generic"), the package uses
// x/crypto/xts and crypto/aes. They keep their round keys in the Go heap, which
// can be swapped out, is in core dumps, and cannot be wiped.
//
// # Threads
//
// A [Cipher] does not change between New and [Cipher.Wipe], so any number of
// goroutines may use it at once on buffers of their own. It uses no lock.
// Except for the pool of the generic implementation, it allocates nothing.
//
// # Limits
//
// XTS does not authenticate: whoever can write the ciphertext can change the
// plaintext, 16 bytes at a time and unpredictably. The package has no ciphertext
// stealing, no AES-192 (the standard has none), and no sectors above 2^20
// blocks.
package xts
