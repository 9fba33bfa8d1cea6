package xts

import (
	"crypto/aes"
	"iter"

	"golang.org/x/crypto/xts"
)

// expandGeneric expands the key with x/crypto, into the Go heap.
func (c *Cipher) expandGeneric(key []byte) (err error) {
	c.generic, err = xts.NewCipher(aes.NewCipher, key)
	return err
}

// eachSector yields each sector of buf with its iv.
func eachSector(buf []byte, sectorSize int, iv, step uint64) iter.Seq2[[]byte, uint64] {
	return func(yield func([]byte, uint64) bool) {
		for ; len(buf) > 0 && yield(buf[:sectorSize], iv); buf = buf[sectorSize:] {
			iv += step
		}
	}
}
