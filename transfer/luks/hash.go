package luks

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/ripemd160" //nolint:staticcheck // SA1019: LUKS1 volumes were made with it; nothing new is
)

// hashes are the hashes that LUKS headers may name, by cryptsetup's names.
var hashes = map[string]func() hash.Hash{
	"ripemd160": ripemd160.New,
	"sha1":      sha1.New,
	"sha256":    sha256.New,
	"sha384":    sha512.New384,
	"sha512":    sha512.New,
}

// hashNamed returns the hash that a header names.
func hashNamed(name string) (func() hash.Hash, error) {
	if h, ok := hashes[name]; ok {
		return h, nil
	}
	return nil, fmt.Errorf("hash %s: %w", printable(name), ErrUnsupported)
}
