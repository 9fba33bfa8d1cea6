package luks

import (
	"crypto/aes"
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
