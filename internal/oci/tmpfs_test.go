package oci

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheckOverlay(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	eighth := info.Totalram * uint64(info.Unit) / 8
	for _, tt := range []struct {
		limit Size
		kind  string
		size  uint64
		want  error
	}{
		{0, overlayTmpfs, eighth, nil},
		{0, overlayTmpfs, eighth + 1, unix.EPERM},
		{1 << 20, overlayTmpfs, 1 << 20, nil},
		{1 << 20, overlayTmpfs, 1<<20 + 1, unix.EPERM},
		{Size(2 * eighth), overlayTmpfs, 2 * eighth, nil},
		{1 << 20, overlayDir, 0, nil},
		{1 << 20, "", 0, nil},
	} {
		s := &Settings{TmpfsLimit: tt.limit}
		if err := s.checkOverlay(overlay{kind: tt.kind, size: tt.size}); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%q of %d bytes with limit %d: error %v, want %v", tt.kind, tt.size, tt.limit, err, tt.want)
		}
	}
}
