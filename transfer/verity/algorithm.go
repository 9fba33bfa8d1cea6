package verity

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// An algorithm is a hash that a tree may use.
type algorithm struct {
	name string
	size int // of a digest, in bytes
	new  func() hash.Hash
}

// algorithms are the supported hashes, by veritysetup's names. sha1 is for old
// images.
var algorithms = []algorithm{
	{"sha256", sha256.Size, sha256.New},
	{"sha512", sha512.Size, sha512.New},
	{"sha1", sha1.Size, sha1.New},
}

// maxDigest is the size of the largest digest in bytes.
const maxDigest = sha512.Size

// algorithmNamed returns an algorithm.
func algorithmNamed(name string) (algorithm, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a, nil
		}
	}
	return algorithm{}, fmt.Errorf("hash %s: only sha256, sha512 and sha1: %w", quoted(name), ErrUnsupported)
}

// A hasher computes the digests of blocks.
type hasher struct {
	hash hash.Hash
	salt []byte
	sum  [maxDigest]byte
}

// digest returns the digest of a block. It is valid until the next call.
func (h *hasher) digest(block []byte) []byte {
	h.hash.Reset()
	h.hash.Write(h.salt)
	h.hash.Write(block)
	return h.hash.Sum(h.sum[:0])
}
