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

// A keyslot is a copy of the volume key that one passphrase opens.
type keyslot struct {
	id     int
	area   area
	kdf    kdf
	hash   func() hash.Hash // of the anti-forensic splitter
	digest digest
	// refused is why this keyslot can't be tried, others may. Set, it leaves
	// kdf and hash incomplete.
	refused error
}

// An area holds the split and encrypted key of a keyslot.
type area struct {
	offset, size uint64 // bytes, from the start of the device
	keySize      int    // of its own encryption by cipherXTS, bytes
}

// materialSize is how much of an area the split key takes, in bytes: whole
// sectors for both sizes of key.
func materialSize(keySize int) uint64 { return uint64(keySize) * stripes }

// unlock writes the volume key into key, or returns an error that wraps
// ErrWrongPassphrase or says why the keyslot could not be tried (LUKS1 4.3,
// LUKS2 4.3). What it leaves in key otherwise is worthless, but not zero.
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

// checkAreas returns an error unless the areas of the slots, for a volume key
// of keySize bytes, lie within start and end and apart from each other
// (LUKS2 2.3).
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
