package luks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// A detached header opens data on another device, at any offset there.
func TestReadDetached(t *testing.T) {
	offset := func(at int, n byte) func(image) image {
		return func(m image) image {
			m = m.clone()
			copy(m.data[at:], []byte{0, 0, 0, n})
			return m
		}
	}
	for name, tt := range map[string]struct {
		image      image
		size       int64
		dataSize   uint64
		passphrase string
		key        string
		want       Volume
	}{
		"LUKS1":               {offset(104, 0)(luks1Long(t)), 2 << 20, 1<<20 + 100, first, key64, Volume{Version: 1, KeySize: 64, Size: 1 << 20, SectorSize: 512}},
		"LUKS1, at 8 sectors": {offset(104, 8)(luks1Long(t)), 2 << 20, 1 << 20, first, key64, Volume{Version: 1, KeySize: 64, Offset: 4096, Size: 1<<20 - 4096, SectorSize: 512}},
		"LUKS2":               {luks2(t).edit(t, segment0("offset", "0")), 1 << 20, 1 << 20, first, key64, Volume{Version: 2, KeySize: 64, Size: 1 << 20, SectorSize: 512}},
		"LUKS2, at 4096":      {luks2(t).edit(t, segment0("offset", "4096")), 1 << 20, 1 << 20, first, key64, Volume{Version: 2, KeySize: 64, Offset: 4096, Size: 1<<20 - 4096, SectorSize: 512}},
	} {
		h, err := ReadDetached(tt.image, tt.size, tt.dataSize)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v, err := h.Volume()
		got := Volume{Version: v.Version, KeySize: v.KeySize, Offset: v.Offset, Size: v.Size, SectorSize: v.SectorSize}
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, error %v; want %+v", name, got, err, tt.want)
		}
		key := make([]byte, v.KeySize)
		if err := h.Unlock(tt.image, []byte(tt.passphrase), Limits{}, key); err != nil || hex.EncodeToString(key) != tt.key {
			t.Errorf("%s: key %x, error %v", name, key, err)
		}
		if h, err := Read(tt.image, tt.size+1<<20); err == nil && h.volume.Offset == 0 {
			if _, err := h.Volume(); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s, not detached: error %v", name, err)
			}
		}
	}
}

// Key material must be inside a detached header, and the data on its device.
func TestReadDetachedRefuses(t *testing.T) {
	m := luks2(t).edit(t, segment0("offset", "0"))
	for name, tt := range map[string]struct {
		size     int64
		dataSize uint64
		want     error
	}{
		"no room for key material": {2 * fixtureSize, 1 << 20, ErrDamaged},
		"half a header":            {fixtureSize / 2, 1 << 20, ErrTooSmall},
		"no data":                  {1 << 20, 511, ErrTooSmall},
	} {
		if h, err := ReadDetached(m, tt.size, tt.dataSize); !errors.Is(err, tt.want) {
			t.Errorf("%s: %+v, error %v, want %v", name, h, err, tt.want)
		}
	}
	if _, err := ReadDetached(bytes.NewReader(make([]byte, 4096)), 4096, 1<<20); !errors.Is(err, ErrNotLUKS) {
		t.Errorf("zeroes: error %v", err)
	}
}
