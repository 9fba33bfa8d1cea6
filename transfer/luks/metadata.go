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
	keyslotsEnd, err := c.keyslotsEnd(h.volume.Offset)
	if err != nil {
		return err
	}
	if err := checkAreas(areas, 2*c.size, keyslotsEnd); err != nil {
		return err
	}
	if err := h.volume.fit(size); err != nil {
		return err
	}
	return h.readKeyslots(c.root, segment)
}

// keyslotsEnd returns the end of the keyslots area. The area begins after both
// copies of the header and must end before the data at dataOffset (LUKS2 2.3,
// 3.5).
func (c luks2Copy) keyslotsEnd(dataOffset uint64) (uint64, error) {
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
	case dataOffset == 0:
		return 0, fmt.Errorf("detached header: %w", ErrUnsupported)
	case dataOffset < start || keyslotsSize > dataOffset-start || keyslotsSize%luks2BinarySize != 0:
		return 0, fmt.Errorf("%w: keyslots area of %d bytes before data at %d", ErrDamaged, keyslotsSize, dataOffset)
	}
	return start + keyslotsSize, nil
}
