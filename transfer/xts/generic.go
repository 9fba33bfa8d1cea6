package xts

import (
	"crypto/aes"
	"iter"

	"golang.org/x/crypto/xts"
)

// expandGeneric has x/crypto expand the key, into the Go heap.
func (c *Cipher) expandGeneric(key []byte) (err error) {
	c.generic, err = xts.NewCipher(aes.NewCipher, key)
	return err
}

// eachSector yields the sectors of buf with their ivs, one by one.
func eachSector(buf []byte, sectorSize int, iv, step uint64) iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		for ; len(buf) > 0 && yield(buf[:sectorSize], iv); buf = buf[sectorSize:] {
			iv += step
		}
	}
}
