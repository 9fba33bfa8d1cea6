package transfer

import (
	"errors"
	"fmt"
)

// The names of transforms.
const (
	None          = "none"
	XOR           = "xor"
	AESXTSPlain64 = "aes-xts-plain64" // as dm-crypt spells it
)

// SectorShift is the base-2 logarithm of the unit in which sectors are
// numbered, whatever a transform's own sectors have: 512 bytes, as in the
// kernel.
const SectorShift = 9

// A Transfer transforms a device's bytes in place. Its methods may be called
// by several threads at once, allocate nothing, and are told the number of the
// 512-byte sector of the device that buf starts with; buf is a whole number of
// the transform's sectors, and starts at one.
type Transfer interface {
	// Encrypt makes of what is written to the device what is in the file.
	Encrypt(buf []byte, sector uint64)
	// Decrypt is its inverse.
	Decrypt(buf []byte, sector uint64)
	// Close wipes the key, after the last call of the others.
	Close() error
}

// Options are how a transform counts.
type Options struct {
	// SectorSize is how many bytes are encrypted at a time: 512, 1024, 2048
	// or 4096.
	SectorSize uint32
	// IVOffset is added to a sector's number, in sectors of 512 bytes; a
	// multiple of SectorSize.
	IVOffset uint64
	// IVLargeSectors counts in units of SectorSize, not of 512 bytes.
	IVLargeSectors bool
}

// Errors of New, beside those that tell what is wrong with a number.
var (
	ErrUnknown = errors.New("unknown transfer")
	ErrNoKey   = errors.New("no key")
	ErrKey     = errors.New("unusable key")
	ErrOptions = errors.New("unusable options")
)

// New returns the transform of a name other than None, which takes the key over
// and closes it, whatever comes of it.
//
// AESXTSPlain64 takes a key of 32 or 64 bytes, AES-128 or AES-256 with two keys
// of equal length and different content (IEEE 1619); XOR one of 1 to 512 bytes,
// and no options.
func New(name string, key *Secret, opts Options) (Transfer, error) {
	if key == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNoKey)
	}
	defer key.Close()
	t, err := newTransfer(name, key.Bytes(), opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func newTransfer(name string, key []byte, opts Options) (Transfer, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	switch name {
	case XOR:
		return newXOR(key, opts)
	case AESXTSPlain64:
		return newAESXTS(key, opts)
	}
	return nil, ErrUnknown
}

// check refuses what dm-crypt does (crypt_ctr in drivers/md/dm-crypt.c).
func (o *Options) check() error {
	switch o.SectorSize {
	case 512, 1024, 2048, 4096:
	default:
		return fmt.Errorf("%w: sectors of %d bytes: not 512, 1024, 2048 or 4096", ErrOptions, o.SectorSize)
	}
	if unit := uint64(o.SectorSize >> SectorShift); o.IVOffset%unit != 0 {
		return fmt.Errorf("%w: iv offset %d: not a multiple of %d, which is a sector of %d bytes", ErrOptions, o.IVOffset, unit, o.SectorSize)
	}
	return nil
}
