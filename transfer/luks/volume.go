package luks

import "fmt"

// These are the supported ciphers, for volumes and for keyslots. The second one has sector
// numbers of 32 bits. Key material has fewer sectors than that, so that both are the same.
const (
	cipherXTS   = "aes-xts-plain64"
	cipherPlain = "aes-xts-plain"
)

// A Volume is a header's description of the data.
type Volume struct {
	// Version is the version of the format: 1 or 2.
	Version int
	// UUID and Label describe the volume to people. LUKS1 has no labels.
	// Strings that are not safe to print are quoted.
	UUID, Label string
	// Cipher is in dm-crypt's notation: aes-xts-plain64 or aes-xts-plain.
	Cipher string
	// KeySize is the size of the volume key in bytes, both halves together: 32
	// or 64.
	KeySize int
	// Offset is the start of the data on the device, and Size its length, in
	// bytes. If the header has no size, the data extends to the last whole
	// sector of the device.
	Offset, Size uint64
	// SectorSize is the unit of encryption, in bytes: 512 to 4096.
	SectorSize uint32
	// IVOffset is added to the sector number with which a sector is encrypted.
	// Sector numbers count 512 bytes for every SectorSize, because cryptsetup
	// sets dm-crypt's iv_large_sectors for no LUKS volume.
	IVOffset uint64
	// Secondary is set if Read used the secondary copy of the header, because
	// the primary copy is damaged or older (LUKS2 4.5).
	Secondary bool
}

// checkCipher returns an error unless the cipher is supported.
func checkCipher(cipher string) error {
	if cipher != cipherXTS && cipher != cipherPlain {
		return fmt.Errorf("cipher %s: only %s and %s: %w", printable(cipher), cipherXTS, cipherPlain, ErrUnsupported)
	}
	return nil
}

// checkKeySize returns an error unless the cipher supports a key of size bytes:
// an AES-128 or AES-256 key, and another for the tweak.
func checkKeySize(size uint64) error {
	if size != 32 && size != 64 {
		return fmt.Errorf("%s with a key of %d bytes: only 32 or 64: %w", cipherXTS, size, ErrUnsupported)
	}
	return nil
}

// fit sets Size for a volume that extends to the end of a device of size bytes.
// It returns an error if the volume does not fit on the device.
func (v *Volume) fit(size uint64) error {
	if v.Offset > size || v.Size > size-v.Offset {
		return fmt.Errorf("%w: %d bytes of data at %d, the device has %d", ErrTooSmall, v.Size, v.Offset, size)
	}
	if v.Size == 0 {
		rest := size - v.Offset
		v.Size = rest - rest%uint64(v.SectorSize)
	}
	if v.Size == 0 {
		return fmt.Errorf("%w: no data at %d, the device has %d bytes", ErrTooSmall, v.Offset, size)
	}
	return nil
}
