package xts

import "errors"

var (
	// ErrKeySize occurs when a key is neither 32 bytes (AES-128) nor 64
	// (AES-256). An XTS key is two AES keys, one for data and one for tweaks.
	ErrKeySize = errors.New("XTS key is neither 32 nor 64 bytes")

	// ErrEqualHalves occurs when the data key and the tweak key are the same,
	// which breaks the security proof of XTS and is refused by FIPS 140-2
	// (implementation guidance A.9).
	ErrEqualHalves = errors.New("XTS key's two halves are equal")
)
