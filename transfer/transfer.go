package transfer

import (
	"errors"
	"fmt"
	"math"
)

// The names of transforms.
const (
	None          = "none"
	XOR           = "xor"
	AESXTSPlain64 = "aes-xts-plain64" // dm-crypt's spelling
	AESXTSPlain   = "aes-xts-plain"   // the same with sector numbers of 32 bits
)

// Names returns the names of all transforms.
func Names() []string { return []string{None, XOR, AESXTSPlain64, AESXTSPlain} }

// MaxKeyBytes is the length of the longest key of any transform.
const MaxKeyBytes = 512

// SectorShift is the base-2 logarithm of the unit of sector numbers: 512 bytes,
// as in the kernel. The size of a transform's own sectors does not change this
// unit.
const SectorShift = 9

// A Transfer transforms a device's bytes in place. Its methods allocate
// nothing, and several threads may call them at once. sector is the number of
// the 512-byte sector of the device at which buf starts. buf starts at a sector
// of the transform and has a whole number of these sectors.
type Transfer interface {
	// Encrypt converts bytes of the device to bytes of the file.
	Encrypt(buf []byte, sector uint64)
	// Decrypt is the inverse of Encrypt.
	Decrypt(buf []byte, sector uint64)
	// Close wipes the key. Call it after the last call of the other methods.
	Close() error
}

// Options say how a transform divides and numbers sectors.
type Options struct {
	// SectorSize is the size of an encrypted sector: 512, 1024, 2048 or 4096.
	SectorSize uint32
	// IVOffset is added to a sector's number, in units of 512 bytes. It is a
	// multiple of SectorSize.
	IVOffset uint64
	// IVLargeSectors numbers sectors in units of SectorSize instead of 512
	// bytes.
	IVLargeSectors bool
}

// Errors that New wraps, besides those of NewSecret.
var (
	ErrUnknown = errors.New("unknown transfer")
	ErrNoKey   = errors.New("no key")
	ErrKey     = errors.New("unusable key")
	ErrOptions = errors.New("unusable options")
)

// New returns the transform with a name other than None. It takes ownership of
// the key and closes it, also on error.
//
// AESXTSPlain64 and AESXTSPlain take a key of 32 or 64 bytes: two different AES-128 or AES-256
// keys of the same length (IEEE 1619). XOR takes a key of 1 to 512 bytes and no
// options.
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
		return newAESXTS(key, opts, math.MaxUint64)
	case AESXTSPlain:
		return newAESXTS(key, opts, math.MaxUint32)
	}
	return nil, ErrUnknown
}

// check refuses what dm-crypt refuses (crypt_ctr in drivers/md/dm-crypt.c).
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
