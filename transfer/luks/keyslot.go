package luks

import (
	"cmp"
	"crypto/aes"
	"fmt"
	"hash"
	"io"
	"slices"

	"golang.org/x/crypto/xts"
)

// A keyslot is a copy of the volume key, encrypted with a passphrase.
type keyslot struct {
	id     int
	area   area
	kdf    kdf
	hash   func() hash.Hash // hash of the anti-forensic splitter
	digest digest
	// refused says why this keyslot cannot be tried; others may still be. If it
	// is set, kdf and hash are incomplete.
	refused error
}

// An area contains the split and encrypted key of a keyslot.
type area struct {
	offset, size uint64 // bytes, from the start of the device
	keySize      int    // of the area's own encryption with cipherXTS, bytes
}

// materialSize returns the size of the split key in bytes. For both key sizes
// it is a whole number of sectors.
func materialSize(keySize int) uint64 { return uint64(keySize) * stripes }

// unlock writes the volume key into key. The error wraps ErrWrongPassphrase, or
// says why the keyslot could not be tried (LUKS1 4.3, LUKS2 4.3). On error, the
// content of key is useless, but not zero.
func (s keyslot) unlock(r io.ReaderAt, passphrase []byte, limits *Limits, key []byte) error {
	if s.refused != nil {
		return s.refused
	}
	if err := s.kdf.spend(limits, s.area.keySize); err != nil {
		return err
	}
	if err := s.digest.spend(limits, len(s.digest.sum)); err != nil {
		return err
	}
	areaKey, err := s.kdf.derive(passphrase, s.area.keySize)
	if err != nil {
		return err
	}
	defer clear(areaKey)
	material := make([]byte, materialSize(len(key)))
	defer clear(material)
	if err := readFull(r, material, s.area.offset); err != nil {
		return err
	}
	if err := decrypt(material, areaKey); err != nil {
		return err
	}
	merge(key, material, s.hash())
	return s.digest.verify(key)
}

// decrypt decrypts key material in place. Its sectors are numbered from 0.
func decrypt(material, key []byte) error {
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	number := uint64(0)
	for s := range slices.Chunk(material, sector) {
		c.Decrypt(s, s, number)
		number++
	}
	return nil
}

// checkAreas returns an error unless the areas of the slots lie between start
// and end and do not overlap, for a volume key of keySize bytes (LUKS2 2.3).
func checkAreas(slots []keyslot, keySize int, start, end uint64) error {
	byOffset := slices.Clone(slots)
	slices.SortFunc(byOffset, func(a, b keyslot) int { return cmp.Compare(a.area.offset, b.area.offset) })
	for _, s := range byOffset {
		a := s.area
		switch {
		case a.offset < start || a.offset > end || a.size > end-a.offset:
			return fmt.Errorf("%w: keyslot %d lies outside of the keyslots area, or in another one", ErrDamaged, s.id)
		case a.offset%sector != 0 || a.size < materialSize(keySize):
			return fmt.Errorf("%w: keyslot %d has %d bytes at %d for a key of %d",
				ErrDamaged, s.id, a.size, a.offset, keySize)
		}
		start = a.offset + a.size
	}
	return nil
}
