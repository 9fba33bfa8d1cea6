package loop

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestTransferRefuses(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	for _, tt := range []struct {
		name string
		cfg  Config
		key  []byte
		want error
		hint string
	}{
		{"zero copy", Config{ZeroCopy: SwitchOn, Transfer: TransferConfig{Name: transfer.XOR}}, testKey, unix.EINVAL, "{zero_copy}"},
		{"a key for nothing", Config{}, testKey, unix.EINVAL, ""},
		{"no key", Config{Transfer: TransferConfig{Name: transfer.XOR}}, nil, transfer.ErrNoKey, "{key}"},
		{"a short key", Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}, testKey[:31], transfer.ErrKey, ""},
		{"a key with a newline", Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}, append(bytes.Clone(testKey), '\n'), transfer.ErrKey, "{keyfile_size=64}"},
		{"equal halves", Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}, make([]byte, 64), transfer.ErrKey, ""},
		{"unknown", Config{Transfer: TransferConfig{Name: "rot13"}}, testKey, transfer.ErrUnknown, ""},
		{"an odd iv offset", Config{SectorSize: 4096, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, IVOffset: 1}}, testKey, transfer.ErrOptions, ""},
		{"an offset within a sector", Config{Offset: 512, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: 4096}}, testKey, unix.EINVAL, "{read_only}"},
		{"a size within a sector", Config{SizeLimit: 4608, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: 4096}}, testKey, unix.EINVAL, "{sizelimit=8192}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.key != nil {
				tt.cfg.Key = secretOf(t, tt.key)
			}
			key := tt.cfg.Key
			// Attach fails before it uses the driver.
			_, err := Attach(nil, openPath(t, path), tt.cfg)
			wantHint(t, err, tt.want, path, tt.hint)
			if key != nil && key.Bytes() != nil {
				t.Error("the key is not closed")
			}
		})
	}
}

func TestTransferNeedsCopy(t *testing.T) {
	for _, zeroCopy := range []Switch{"", SwitchAuto, SwitchOff} {
		may, err := chooseBuffers(nil, &Config{ZeroCopy: zeroCopy, Transfer: TransferConfig{Name: transfer.XOR}})
		if err != nil || len(may.modes) != 1 || may.modes[0] != ublk.BufferCopy {
			t.Errorf("zero copy %q: modes %v, error %v", zeroCopy, may.modes, err)
		}
	}
}
