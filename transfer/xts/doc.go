// Package xts is XTS-AES (IEEE 1619-2018) as dm-crypt's aes-xts-plain64 uses
// it, in place, at the speed of the processor's AES instructions.
//
// # What is computed
//
// A sector is a data unit of the standard, without ciphertext stealing. Its
// tweak is its iv, 64 bits little-endian in 16 bytes of which the upper eight
// are zero: what dm-crypt calls plain64. Whether ivs count units of 512 bytes
// or sectors is the caller's choice of iv and step: dm-crypt counts 512 bytes
// (iv = offset/512, step = sectorSize/512) unless iv_large_sectors is set.
//
// # Where keys are
//
// With AES instructions all key material is in the memory that the caller gave
// to [New]. The round keys are read from there, the encrypted tweaks are on the
// stack during a call, and before it returns the vector registers' keys and
// tweaks and the stack's are zeroed. One copy is beyond this package: a signal
// during a call, such as the Go runtime sends to preempt, has the kernel save
// the registers, round keys among them, to a signal stack of the Go runtime.
//
// Without AES instructions ([Implementation] is "generic") x/crypto/xts and
// crypto/aes do the work. They keep their round keys in the Go heap, which can
// be swapped out, is in core dumps, and cannot be wiped.
//
// # Threads
//
// A [Cipher] does not change between New and [Cipher.Wipe], so any number of
// goroutines may use it at a time on buffers of their own. Nothing is locked
// and, but for the generic implementation's pool, nothing is allocated.
//
// # What it leaves out
//
// XTS authenticates nothing: who can write the ciphertext can change the
// plaintext, 16 bytes at a time and unpredictably. No ciphertext stealing, no
// AES-192 (the standard has none), no sectors above 2^20 blocks.
package xts
