package transfer

import (
	"crypto/subtle"
	"fmt"
)

// xorSectorSize is the number of bytes after which the key starts again, as in
// the kernel's loop driver when it had transforms (transfer_xor, until Linux
// 5.16).
const xorSectorSize = 512

// xor hides nothing. It exists to test the transfer code.
type xor struct {
	pad *Secret // the key, repeated to fill a sector
}

var _ Transfer = (*xor)(nil)

func newXOR(key []byte, opts Options) (*xor, error) {
	if opts.IVOffset != 0 || opts.IVLargeSectors {
		return nil, fmt.Errorf("%w: it has no iv", ErrOptions)
	}
	if len(key) == 0 || len(key) > xorSectorSize {
		return nil, fmt.Errorf("%w: %d bytes, not 1 to %d", ErrKey, len(key), xorSectorSize)
	}
	pad, err := NewSecret(xorSectorSize)
	if err != nil {
		return nil, err
	}
	for rest := pad.Bytes(); len(rest) > 0; {
		rest = rest[copy(rest, key):]
	}
	return &xor{pad}, nil
}

// Encrypt implements Transfer.
func (x *xor) Encrypt(buf []byte, _ uint64) {
	pad := x.pad.Bytes()
	for ; len(buf) > 0; buf = buf[xorSectorSize:] {
		subtle.XORBytes(buf[:xorSectorSize], buf[:xorSectorSize], pad)
	}
}

// Decrypt implements Transfer.
func (x *xor) Decrypt(buf []byte, sector uint64) { x.Encrypt(buf, sector) }

// Close implements Transfer.
func (x *xor) Close() error {
	x.pad.Close()
	return nil
}
