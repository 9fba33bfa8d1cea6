package xts

import (
	"crypto/aes"

	"golang.org/x/crypto/xts"
)

// expandGeneric has x/crypto expand the key, into the Go heap.
func (c *Cipher) expandGeneric(key []byte) (err error) {
	c.generic, err = xts.NewCipher(aes.NewCipher, key)
	return err
}

// genericCrypt applies crypt, a method of c.generic, to each sector of buf.
func (c *Cipher) genericCrypt(buf []byte, sectorSize int, iv, step uint64, crypt func(dst, src []byte, sector uint64)) {
	for ; len(buf) > 0; buf = buf[sectorSize:] {
		crypt(buf[:sectorSize], buf[:sectorSize], iv)
		iv += step
	}
}
