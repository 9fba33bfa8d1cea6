package xts

import (
	"crypto/subtle"
	"fmt"

	"golang.org/x/crypto/xts"
)

const (
	blockSize     = 16
	maxSectorSize = 1 << 20 * blockSize // IEEE 1619-2018, 5.1: at most 2^20 blocks in a data unit
)

// Cipher is an XTS key ready for use. The zero value is not usable: see [New].
type Cipher struct {
	keys    *[ScheduleSize]byte // the caller's memory; nil once wiped
	rounds  int                 // 10 (AES-128) or 14 (AES-256)
	impl    implementation
	generic *xts.Cipher // only with impl generic
}

// New expands a key of 32 bytes (AES-128) or 64 bytes (AES-256), data key
// first. It returns [ErrKeySize] for any other length, and [ErrEqualHalves] if
// the data key and the tweak key are equal.
//
// The round keys go into the first [ScheduleSize] bytes of mem. They belong to
// the Cipher and must stay mapped until [Cipher.Wipe]. mem may be anywhere, for
// example in a locked mapping that is excluded from core dumps. It is fastest
// at a multiple of 64 bytes. New panics if mem is shorter. New does not keep
// key, so the caller can wipe it.
func New(mem, key []byte) (*Cipher, error) {
	return newCipher(best(), mem, key)
}

func newCipher(impl implementation, mem, key []byte) (*Cipher, error) {
	if len(key) != 32 && len(key) != 64 {
		return nil, fmt.Errorf("%d bytes: %w", len(key), ErrKeySize)
	}
	if subtle.ConstantTimeCompare(key[:len(key)/2], key[len(key)/2:]) == 1 {
		return nil, ErrEqualHalves
	}
	return expand(impl, mem, key)
}

// Encrypt encrypts the sectors of buf in place. The first sector has the given
// iv; the iv of each further sector is that of the previous sector plus step,
// modulo 2^64. Encrypt panics if sectorSize (in bytes) is not a positive
// multiple of 16 up to 16 MiB, if buf is not a whole number of sectors, or
// after Wipe.
func (c *Cipher) Encrypt(buf []byte, sectorSize int, iv, step uint64) {
	c.check(buf, sectorSize)
	if c.impl == generic {
		for sector, iv := range eachSector(buf, sectorSize, iv, step) {
			c.generic.Encrypt(sector, sector, iv)
		}
		return
	}
	b := batch{keys: c.keys, rounds: c.rounds, iv: iv, step: step}
	for len(buf) > 0 {
		buf = b.take(buf, sectorSize)
		encryptBatch(c.impl, &b)
	}
}

// Decrypt is the inverse of [Cipher.Encrypt] for the same arguments. It panics
// in the same cases.
func (c *Cipher) Decrypt(buf []byte, sectorSize int, iv, step uint64) {
	c.check(buf, sectorSize)
	if c.impl == generic {
		for sector, iv := range eachSector(buf, sectorSize, iv, step) {
			c.generic.Decrypt(sector, sector, iv)
		}
		return
	}
	b := batch{keys: c.keys, rounds: c.rounds, iv: iv, step: step}
	for len(buf) > 0 {
		buf = b.take(buf, sectorSize)
		decryptBatch(c.impl, &b)
	}
}

// Wipe zeroes the round keys and releases their memory. No call of Encrypt or
// Decrypt may be in progress or follow. Further calls of Wipe do nothing.
func (c *Cipher) Wipe() {
	if c.keys != nil {
		clear(c.keys[:])
	}
	c.keys, c.generic = nil, nil
}

// check panics if the call would encrypt without a key, leave part of the
// buffer unchanged, or access memory beyond the buffer.
func (c *Cipher) check(buf []byte, sectorSize int) {
	switch {
	case c.keys == nil:
		panic("xts: cipher is used before New or after Wipe")
	case sectorSize <= 0 || sectorSize%blockSize != 0 || sectorSize > maxSectorSize:
		panic(fmt.Sprintf("xts: sector size of %d bytes is not a multiple of 16 from 16 to %d", sectorSize, maxSectorSize))
	case len(buf)%sectorSize != 0:
		panic(fmt.Sprintf("xts: buffer of %d bytes is not a whole number of sectors of %d", len(buf), sectorSize))
	}
}
