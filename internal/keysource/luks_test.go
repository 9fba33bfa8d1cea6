package keysource

import (
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

func TestUseVolume(t *testing.T) {
	v := luks.Volume{Version: 2, UUID: "u", Offset: 4096, Size: 8192, SectorSize: 512, IVOffset: 8}
	for _, tt := range []struct {
		offset, limit, total uint64
		want                 uint64 // size limit
	}{
		{1 << 20, 0, 4096 + 8192, 0}, // to the end, wherever that will be
		{1 << 20, 0, 4096 + 8192 + 100, 8192},
		{1 << 20, 4096 + 8192, 4096 + 8192, 8192},
	} {
		c := loop.Config{Offset: tt.offset, SizeLimit: tt.limit}
		useVolume(&v, &c, tt.total)
		want := loop.Config{Offset: tt.offset + 4096, SizeLimit: tt.want, Transfer: loop.TransferConfig{
			Name: "aes-xts-plain64", SectorSize: 512, IVOffset: 8, LUKS: 2, UUID: "u", LUKSOffset: tt.offset,
		}}
		if c != want {
			t.Errorf("%+v: %+v", tt, c)
		}
	}
}

func TestParseAvailable(t *testing.T) {
	const without = "MemTotal:  10 kB\nMemFree:  5 kB\n"
	for text, want := range map[string]uint64{
		"":      0,
		without: 0,
		without + "MemAvailable:    8 kB\nHugePages_Total: 0\n": 8 << 10,
	} {
		if got := parseAvailable(strings.NewReader(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
