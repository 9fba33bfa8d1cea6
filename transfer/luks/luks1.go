package luks

import (
	"encoding/binary"
	"fmt"
)

const (
	// luks1Size is the size of the LUKS1 header in bytes (LUKS1 3.1, figure 1).
	luks1Size = 592
	// luks1Slots is the number of keyslots in the header, luks1SlotSize the
	// size of each, and luks1SlotsAt the offset of the first (figures 1 and 2).
	luks1Slots    = 8
	luks1SlotSize = 48
	luks1SlotsAt  = 208
	// luks1Active and luks1Inactive are the states of a keyslot.
	luks1Active   = 0x00AC71F3
	luks1Inactive = 0x0000DEAD
	// luks1DigestSize is the size of the master key's checksum in bytes.
	luks1DigestSize = 20
)

// readLUKS1 reads the header from b, the first luks1Size bytes of a device of
// size bytes (LUKS1 3.1).
func (h *Header) readLUKS1(b []byte, size uint64) error {
	v := &h.volume
	*v = Volume{Version: 1, SectorSize: sector}
	cipher, hashSpec, err := v.luks1Names(b)
	if err != nil {
		return err
	}
	if err := checkCipher(cipher); err != nil {
		return err
	}
	keySize := binary.BigEndian.Uint32(b[108:])
	if err := checkKeySize(uint64(keySize)); err != nil {
		return err
	}
	v.KeySize = int(keySize)
	v.Offset = uint64(binary.BigEndian.Uint32(b[104:])) * sector
	if v.Offset == 0 && !h.detached {
		return fmt.Errorf("detached header: %w", ErrUnsupported)
	}
	if err := v.fit(h.dataSize); err != nil {
		return err
	}
	return h.luks1Slots(b, hashSpec, h.keyslotsLimit(size))
}

// luks1Names reads the strings of the header. It returns the unmodified names
// of the cipher and of the hash.
func (v *Volume) luks1Names(b []byte) (cipher, hashSpec string, err error) {
	var text [4]string
	for i, field := range [][]byte{b[8:40], b[40:72], b[72:104], b[168:208]} {
		if text[i], err = cString(field); err != nil {
			return "", "", err
		}
	}
	cipher = text[0] + "-" + text[1]
	v.Cipher, v.UUID = printable(cipher), printable(text[3])
	return cipher, text[2], nil
}

// luks1Slots reads the keyslots, whose material must end before a limit. All of them use one hash
// and one digest. Like cryptsetup, it checks the areas of inactive keyslots, too.
func (h *Header) luks1Slots(b []byte, hashSpec string, limit uint64) error {
	hash, err := hashNamed(hashSpec)
	if err != nil {
		return err
	}
	d := digest{sum: b[112 : 112+luks1DigestSize], pbkdf2Params: pbkdf2Params{
		hash: hash, salt: b[132 : 132+saltSize], iterations: uint64(binary.BigEndian.Uint32(b[164:])),
	}}
	if err := d.check(); err != nil {
		return err
	}
	areas := map[int]area{}
	for i := range luks1Slots {
		s, active, err := luks1Slot(b[luks1SlotsAt+i*luks1SlotSize:][:luks1SlotSize], d, h.volume.KeySize)
		if err != nil {
			return fmt.Errorf("keyslot %d: %w", i, err)
		}
		s.id, areas[i] = i, s.area
		if active {
			h.slots = append(h.slots, s)
		}
	}
	// The header has two sectors; the second is not full.
	if err := checkAreas(areas, 2*sector, limit); err != nil {
		return err
	}
	if len(h.slots) == 0 {
		return ErrNoKeyslot
	}
	return nil
}

// luks1Slot reads a keyslot (LUKS1 3.1, figure 2).
func luks1Slot(entry []byte, d digest, keySize int) (s keyslot, active bool, err error) {
	state := binary.BigEndian.Uint32(entry)
	if state != luks1Active && state != luks1Inactive {
		return s, false, fmt.Errorf("%w: state %#x", ErrDamaged, state)
	}
	if n := binary.BigEndian.Uint32(entry[44:]); n != stripes {
		return s, false, fmt.Errorf("%w: %d stripes, not %d", ErrDamaged, n, stripes)
	}
	params := pbkdf2Params{
		hash: d.hash, salt: entry[8 : 8+saltSize], iterations: uint64(binary.BigEndian.Uint32(entry[4:])),
	}
	material := area{
		offset:  uint64(binary.BigEndian.Uint32(entry[40:])) * sector,
		size:    materialSize(keySize),
		keySize: keySize,
	}
	s = keyslot{area: material, kdf: params, hash: d.hash, digest: d}
	if state == luks1Inactive { // its salt and iterations are zero
		return s, false, nil
	}
	return s, true, params.check()
}
