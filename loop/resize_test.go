package loop

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

func TestResizedTo(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		asked, total, offset, limit uint64
		sector                      uint32
		want                        uint64
	}{
		{"the file", 0, 8192, 0, 0, 512, 8192},
		{"from the offset on", 0, 8192, 1024, 0, 512, 7168},
		{"up to the limit", 0, 8192, 1024, 4096, 512, 4096},
		{"the file ends before the limit", 0, 8192, 6144, 4096, 512, 2048},
		{"asked for", 2048, 8192, 1024, 0, 512, 2048},
		{"asked for above the limit", 6144, 8192, 1024, 4096, 512, 6144},
		{"asked for up to the end", 7168, 8192, 1024, 0, 512, 7168},
		{"above 32 bits", 5 << 40, 6 << 40, 0, 0, 4096, 5 << 40},
	} {
		s := &Status{Offset: tt.offset, SizeLimit: tt.limit}
		if got, err := resizedTo(tt.asked, tt.total, s, tt.sector); err != nil || got != tt.want {
			t.Errorf("%s: %d, error %v; want %d", tt.name, got, err, tt.want)
		}
	}
}

func TestResizedToRefuses(t *testing.T) {
	for _, tt := range []struct {
		name                        string
		asked, total, offset, limit uint64
		sector                      uint32
		hint                        string
	}{
		{"beyond the end", 8704, 8192, 0, 0, 512, "truncate"},
		{"beyond the end, by the offset", 7680, 8192, 1024, 0, 512, "truncate"},
		{"no sectors asked for", 1000, 8192, 0, 0, 512, "multiple is 512"},
		{"no sectors of 4096", 6144, 8192, 0, 0, 4096, "multiple is 4096"},
		{"the file has no whole sectors", 0, 8200, 0, 0, 512, "multiple is 8192"},
		{"less than a sector", 100, 8192, 0, 0, 512, "smallest size is 512"},
		{"the file is empty", 0, 0, 0, 0, 512, "truncate"},
		{"the file was cut to the offset", 0, 1024, 1024, 0, 512, "truncate"},
		{"the file was cut before the offset", 0, 512, 1024, 0, 512, "truncate"},
		{"the file was cut to less than a sector", 0, 1100, 1024, 0, 512, "truncate"},
	} {
		s := &Status{Offset: tt.offset, SizeLimit: tt.limit}
		_, err := resizedTo(tt.asked, tt.total, s, tt.sector)
		if !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: error %v, want EINVAL", tt.name, err)
		}
		var h *hint.Error
		if text := ""; errors.As(err, &h) {
			text = h.Hint
			if tt.hint == "" || !strings.Contains(text, tt.hint) {
				t.Errorf("%s: hint %q, want %q", tt.name, text, tt.hint)
			}
		} else if tt.hint != "" {
			t.Errorf("%s: no hint, want %q", tt.name, tt.hint)
		}
	}
}
