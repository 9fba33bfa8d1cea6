package xts

import "errors"

var (
	// ErrKeySize is returned for a key that has neither 32 bytes (AES-128) nor
	// 64 (AES-256). An XTS key is two AES keys, one for data and one for
	// tweaks.
	ErrKeySize = errors.New("XTS key is neither 32 nor 64 bytes")

	// ErrEqualHalves is returned if the data key and the tweak key are equal.
	// Equal keys break the security proof of XTS, and FIPS 140-2 refuses them
	// (implementation guidance A.9).
	ErrEqualHalves = errors.New("XTS key's two halves are equal")
)
