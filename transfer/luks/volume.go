package luks

import "fmt"

// cipherXTS is the one cipher that is opened, of volumes and of keyslots.
const cipherXTS = "aes-xts-plain64"

// A Volume is what a header says of the data.
type Volume struct {
	// Version is that of the format: 1 or 2.
	Version int
	// UUID and Label are for people; LUKS1 has no labels. Both are as the
	// header has them, unless they are not fit to print.
	UUID, Label string
	// Cipher is in dm-crypt's notation: aes-xts-plain64.
	Cipher string
	// KeySize is that of the volume key, in bytes: 32 or 64, both halves.
	KeySize int
	// Offset is where the data begins on the device, and Size how far it goes,
	// in bytes. A volume without a size of its own goes to the device's last
	// whole sector.
	Offset, Size uint64
	// SectorSize is the unit of encryption, in bytes: 512 to 4096.
	SectorSize uint32
	// IVOffset is what is added to the sector number that a sector is
	// encrypted with. That number counts 512 bytes whatever SectorSize is:
	// cryptsetup sets dm-crypt's iv_large_sectors for no LUKS volume.
	IVOffset uint64
	// Secondary is set where the header's second copy was taken, because the
	// first is damaged or older (LUKS2 4.5).
	Secondary bool
}

// checkCipher returns an error unless the cipher is the one that is opened.
func checkCipher(cipher string) error {
	if cipher != cipherXTS {
		return fmt.Errorf("cipher %s: only %s: %w", printable(cipher), cipherXTS, ErrUnsupported)
	}
	return nil
}

// checkKeySize returns an error unless its cipher takes a key of size bytes:
// AES-128 or AES-256, and as much again for the tweak.
func checkKeySize(size uint64) error {
	if size != 32 && size != 64 {
		return fmt.Errorf("%s with a key of %d bytes: only 32 or 64: %w", cipherXTS, size, ErrUnsupported)
	}
	return nil
}

// fit sets the Size of a volume that goes to the end of a device of size
// bytes, and returns an error for one that does not fit on the device.
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
