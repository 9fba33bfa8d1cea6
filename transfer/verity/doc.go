// Package verity computes and checks the hash trees of dm-verity, version 1, and
// reads and writes veritysetup's superblock. It opens nothing: data and hash
// blocks come from an io.Reader or io.ReaderAt, or from the caller's buffers.
//
// # The tree
//
// The digest of a block is the hash of the salt followed by the block. A hash
// block has 2^k slots, as many as fit. Slot i begins with the digest of the i-th
// block below, and its other bytes are zero; unused slots are zero. Level 0 has
// the digests of the data, and each other level those of the level below, until
// one block is left. The digest of this block is the root hash. Data of one block
// has no levels: the root hash is the digest of the data. In the hash area the
// topmost level comes first. docs/verity.md has the same bit by bit.
//
// # Trust
//
// Only the root hash is trusted. It does not cover the superblock, but a wrong
// superblock leads to other digests: see docs/verity.md for the exception, a
// smaller number of data blocks. Every value of a superblock is checked before
// it is used, and all memory is bounded by the block sizes, at most 512 KiB.
//
// # Verifiers
//
// A [Tree] is immutable, and any number of goroutines may share it. A
// [Verifier] remembers hash blocks and has the state of a hash, so only one
// goroutine at a time may use it: a device with several queues has a Verifier for
// each. It takes no lock and allocates nothing after [NewVerifier].
package verity
