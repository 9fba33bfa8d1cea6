package luks

import (
	"cmp"
	"fmt"
	"hash"
	"slices"
	"strconv"
)

// readKeyslots reads the keyslots that contain the segment's key, in the order
// in which Unlock tries them. It skips keyslots of unknown types (LUKS2 3,
// 3.2).
func (h *Header) readKeyslots(root object, segment string) error {
	d, bound, err := readDigest(root.object("digests"), segment)
	if err != nil {
		return err
	}
	keyslots := root.object("keyslots")
	priorities := map[int]uint64{}
	for _, id := range keyslots.ids() {
		o := keyslots.object(strconv.Itoa(id))
		if o.text("type") != "luks2" {
			continue
		}
		s, err := readKeyslot(o, id, d)
		if err != nil {
			return err
		}
		if !slices.Contains(bound, strconv.Itoa(id)) {
			continue
		}
		if err := h.volume.setKeySize(o); err != nil {
			return err
		}
		if err := s.area.checkMaterial(id, h.volume.KeySize); err != nil {
			return err
		}
		h.slots = append(h.slots, s)
		priorities[id] = readPriority(o)
	}
	if len(h.slots) == 0 {
		return ErrNoKeyslot
	}
	h.order(priorities)
	return nil
}

// order sorts the slots by priority and removes those with priority 0.
func (h *Header) order(priorities map[int]uint64) {
	h.slots = slices.DeleteFunc(h.slots, func(s keyslot) bool { return priorities[s.id] == 0 })
	slices.SortStableFunc(h.slots, func(a, b keyslot) int { return cmp.Compare(priorities[b.id], priorities[a.id]) })
}

// readPriority returns 0 for a keyslot to ignore, 1 for normal priority, and 2
// for a keyslot to try first (LUKS2 3.2).
func readPriority(o object) uint64 {
	if !o.has("priority") {
		return 1
	}
	priority := o.number("priority")
	if priority > 2 {
		o.fail("priority", "not 0, 1 or 2")
	}
	return priority
}

// setKeySize sets the size of the volume key from a keyslot that contains the
// key. All such keyslots must have the same size.
func (v *Volume) setKeySize(o object) error {
	size := o.number("key_size")
	if *o.err != nil {
		return *o.err
	}
	if err := checkKeySize(size); err != nil {
		return err
	}
	if v.KeySize != 0 && v.KeySize != int(size) {
		o.fail("key_size", "not that of the other keyslots")
	}
	v.KeySize = int(size)
	return *o.err
}

// readKeyslot reads a keyslot of type luks2 (LUKS2 3.2.1). An error refuses the
// whole header. The refused field of the keyslot refuses only the keyslot.
func readKeyslot(o object, id int, d digest) (keyslot, error) {
	at, af := o.object("area"), o.object("af")
	s := keyslot{id: id, digest: d, area: area{offset: at.decimal("offset"), size: at.decimal("size")}}
	if n := af.number("stripes"); *o.err == nil && n != stripes {
		af.fail("stripes", fmt.Sprintf("not %d", stripes))
	}
	s.area.keySize, s.refused = readAreaCipher(at)
	splitter, err := readSplitter(af)
	s.hash, s.refused = splitter, cmp.Or(s.refused, err)
	derivation, err := readKDF(o.object("kdf"))
	s.kdf, s.refused = derivation, cmp.Or(s.refused, err)
	return s, *o.err
}

// readAreaCipher returns the size of the key that encrypts an area, in bytes
// (LUKS2 3.2.3).
func readAreaCipher(o object) (int, error) {
	kind, cipher, size := o.text("type"), o.text("encryption"), o.number("key_size")
	if kind != "raw" { // the only type that LUKS2 3.2.1 allows
		o.fail("type", printable(kind)+", not raw")
	}
	if err := checkCipher(cipher); err != nil {
		return 0, err
	}
	return int(size), checkKeySize(size)
}

// readSplitter returns the hash of an anti-forensic splitter (LUKS2 3.2.4).
func readSplitter(o object) (func() hash.Hash, error) {
	kind, name := o.text("type"), o.text("hash")
	if kind != "luks1" { // the only type of LUKS2 3.2.4
		o.fail("type", printable(kind)+", not luks1")
	}
	return hashNamed(name)
}
