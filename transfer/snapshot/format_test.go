package snapshot

import (
	"errors"
	"testing"
)

// zeroesBut is a file of zeroes with one other byte.
type zeroesBut int64

func (z zeroesBut) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at <= int64(z) && int64(z) < at+int64(len(b)) {
		b[int64(z)-at] = 1
	}
	return len(b), nil
}

// A new store is only made where nothing is. The kernel would overwrite an ext4 file
// system, whose first 1080 bytes are zero.
func TestCheckEmpty(t *testing.T) {
	for _, c := range []struct {
		chunkSize uint32
		size      uint64
		byte      int64
		want      error
	}{
		{4 << 10, 1 << 20, -1, nil},
		{4 << 10, 1 << 20, 0, ErrNotEmpty},
		{4 << 10, 1 << 20, 1080, ErrNotEmpty},  // ext4
		{4 << 10, 1 << 20, 65536, ErrNotEmpty}, // btrfs
		{4 << 10, 1 << 20, 128<<10 - 1, ErrNotEmpty},
		{4 << 10, 1 << 20, 128 << 10, nil},
		{1 << 20, 4 << 20, 2<<20 - 1, ErrNotEmpty}, // end of the first area
		{1 << 20, 4 << 20, 2 << 20, nil},
		{4 << 10, 12 << 10, 12<<10 - 1, ErrNotEmpty},
		{4 << 10, 12<<10 - 1, -1, ErrTooSmall},
		{1 << 20, 3<<20 - 1, -1, ErrTooSmall},
	} {
		err := CheckEmpty(zeroesBut(c.byte), c.size, layoutOf(t, c.chunkSize))
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
