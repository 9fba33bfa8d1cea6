package transfer

// aesXTSPlain is dm-crypt's aes-xts-plain: aes-xts-plain64 with the low 32 bits of the iv
// number (crypt_iv_plain_gen in drivers/md/dm-crypt.c).
type aesXTSPlain struct{ *aesXTS }

var _ Transfer = aesXTSPlain{}

// Encrypt implements Transfer.
func (x aesXTSPlain) Encrypt(buf []byte, sector uint64) {
	for len(buf) > 0 {
		n, iv := x.run(len(buf), sector)
		x.cipher.Encrypt(buf[:n], x.sectorSize, iv, x.ivStep)
		buf, sector = buf[n:], sector+uint64(n>>SectorShift)
	}
}

// Decrypt implements Transfer.
func (x aesXTSPlain) Decrypt(buf []byte, sector uint64) {
	for len(buf) > 0 {
		n, iv := x.run(len(buf), sector)
		x.cipher.Decrypt(buf[:n], x.sectorSize, iv, x.ivStep)
		buf, sector = buf[n:], sector+uint64(n>>SectorShift)
	}
}

// run returns the iv number of a sector, and how many of size bytes follow before the number
// starts again from the beginning.
func (x aesXTSPlain) run(size int, sector uint64) (n int, iv uint64) {
	const numbers = 1 << 32
	iv = x.iv(sector) % numbers
	sectors := (numbers - iv + x.ivStep - 1) / x.ivStep
	return int(min(uint64(size), sectors*uint64(x.sectorSize))), iv
}

func newAESXTSPlain(key []byte, opts Options) (Transfer, error) {
	x, err := newAESXTS(key, opts)
	if err != nil {
		return nil, err
	}
	return aesXTSPlain{x}, nil
}
