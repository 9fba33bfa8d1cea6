package luks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// An area contains the split and encrypted key of a keyslot.
type area struct {
	offset, size uint64 // bytes, from the start of the device
	keySize      int    // of the area's own encryption with cipherXTS, bytes
}

// materialSize returns the size of the split key in bytes. For both key sizes
// it is a whole number of sectors.
func materialSize(keySize int) uint64 { return uint64(keySize) * stripes }

// checkMaterial returns an error unless the area is aligned and large enough for
// the split key of keySize bytes.
func (a area) checkMaterial(id, keySize int) error {
	if a.offset%sector != 0 || a.size < materialSize(keySize) {
		return fmt.Errorf("%w: keyslot %d has %d bytes at %d for a key of %d",
			ErrDamaged, id, a.size, a.offset, keySize)
	}
	return nil
}

// checkAreas returns an error unless the areas of all keyslots lie between start
// and end, do not overlap, and are not empty (LUKS2 2.3).
func checkAreas(areas map[int]area, start, end uint64) error {
	byOffset := slices.SortedFunc(maps.Keys(areas), func(a, b int) int {
		return cmp.Or(cmp.Compare(areas[a].offset, areas[b].offset), cmp.Compare(a, b))
	})
	for _, id := range byOffset {
		a := areas[id]
		switch {
		case a.offset < start || a.offset > end || a.size > end-a.offset:
			return fmt.Errorf("%w: keyslot %d lies outside of the keyslots area, or in another one", ErrDamaged, id)
		case a.size == 0:
			return fmt.Errorf("%w: keyslot %d has 0 bytes", ErrDamaged, id)
		}
		start = a.offset + a.size
	}
	return nil
}
