package luks

import "fmt"

// luks2Objects is the maximum number of keyslots, segments, digests or tokens in a
// header. Except for digests, it is cryptsetup's limit.
const luks2Objects = 32

// maxKeyslotsSize is the maximum size of the keyslots area in bytes. It is
// cryptsetup's limit.
const maxKeyslotsSize = 128 << 20

// readMetadata reads the metadata of a copy of a LUKS2 header, for a device of
// size bytes (LUKS2 3).
func (h *Header) readMetadata(c luks2Copy, size uint64) error {
	h.volume.Version, h.volume.UUID, h.volume.Label = 2, c.uuid, c.label
	if err := checkRequirements(c.root.object("config")); err != nil {
		return err
	}
	if err := checkReencryption(c.root.object("keyslots")); err != nil {
		return err
	}
	areas, err := checkObjects(c.root)
	if err != nil {
		return err
	}
	segment, err := h.volume.readSegment(c.root.object("segments"))
	if err != nil {
		return err
	}
	if h.volume.Offset == 0 && !h.detached {
		return fmt.Errorf("detached header: %w", ErrUnsupported)
	}
	keyslotsEnd, err := c.keyslotsEnd(h.keyslotsLimit(size))
	if err != nil {
		return err
	}
	if err := checkAreas(areas, 2*c.size, keyslotsEnd); err != nil {
		return err
	}
	if err := h.volume.fit(h.dataSize); err != nil {
		return err
	}
	return h.readKeyslots(c.root, segment)
}

// keyslotsEnd returns the end of the keyslots area. The area begins after both
// copies of the header and must end before the data, or the end of a detached header (LUKS2
// 2.3, 3.5).
func (c luks2Copy) keyslotsEnd(limit uint64) (uint64, error) {
	config := c.root.object("config")
	jsonSize, keyslotsSize := config.decimal("json_size"), config.decimal("keyslots_size")
	config.optionalTexts("flags")
	start := 2 * c.size
	switch {
	case *config.err != nil:
		return 0, *config.err
	case jsonSize != c.size-luks2BinarySize:
		return 0, fmt.Errorf("%w: JSON area of %d bytes in a header of %d", ErrDamaged, jsonSize, c.size)
	case keyslotsSize > maxKeyslotsSize:
		return 0, fmt.Errorf("%w: keyslots area of %d bytes", ErrDamaged, keyslotsSize)
	case limit < start || keyslotsSize > limit-start || keyslotsSize%luks2BinarySize != 0:
		return 0, fmt.Errorf("%w: keyslots area of %d bytes before %d", ErrDamaged, keyslotsSize, limit)
	}
	return start + keyslotsSize, nil
}
