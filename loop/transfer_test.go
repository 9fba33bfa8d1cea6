package loop

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestTransferSectorSizes(t *testing.T) {
	file, disk512, disk4K := backing{fd: -1}, backing{isDisk: true}, backing{isDisk: true}
	disk512.queue.logicalBlockSize = 512
	disk4K.queue.logicalBlockSize = 4096
	for _, tt := range []struct {
		name           string
		b              *backing
		asked, own     uint32 // of the device, of the transfer
		device, cipher uint32 // 0 for EINVAL
	}{
		{"file", &file, 0, 0, 512, 512},
		{"file, asked for", &file, 4096, 0, 4096, 4096},
		{"file, the transfer's", &file, 0, 4096, 4096, 4096},
		{"file, both", &file, 2048, 2048, 2048, 2048},
		{"file, larger than the transfer's", &file, 4096, 512, 0, 0},
		{"file, smaller than the transfer's", &file, 512, 4096, 0, 0},
		{"file, too large a transfer's", &file, 0, 8192, 0, 0},
		{"disk, the transfer's", &disk512, 0, 4096, 4096, 4096},
		{"4K disk", &disk4K, 0, 0, 4096, 4096},
		{"4K disk, smaller ones of the transfer", &disk4K, 0, 512, 4096, 512},
		{"4K disk, asked for larger than the transfer's", &disk4K, 4096, 512, 0, 0},
	} {
		cfg := &Config{SectorSize: tt.asked, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: tt.own}}
		device, err := tt.b.chooseSectorSize(cfg, 1<<20)
		var cipher uint32
		if err == nil {
			cipher = cfg.Transfer.sectorSizeOn(device)
		}
		switch {
		case tt.device == 0 && !errors.Is(err, unix.EINVAL):
			t.Errorf("%s: sectors of %d and %d, error %v, want EINVAL", tt.name, device, cipher, err)
		case tt.device != 0 && (err != nil || device != tt.device || cipher != tt.cipher):
			t.Errorf("%s: sectors of %d and %d, error %v, want %d and %d", tt.name, device, cipher, err, tt.device, tt.cipher)
		}
	}
}

// The image of a disk is not looked into through a cipher.
func TestTransferHidesPartitionTable(t *testing.T) {
	cfg := Config{Transfer: TransferConfig{Name: transfer.XOR}}
	path := newFile(t, "image", 1<<20)
	writeAt(t, path, gptSignature, 4096)
	b, err := openFor(t, path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if b.sectorSize != 512 {
		t.Errorf("sectors of %d", b.sectorSize)
	}
}

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
		{"equal halves", Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}, make([]byte, 64), transfer.ErrKey, ""},
		{"unknown", Config{Transfer: TransferConfig{Name: "rot13"}}, testKey, transfer.ErrUnknown, ""},
		{"an odd iv offset", Config{SectorSize: 4096, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, IVOffset: 1}}, testKey, transfer.ErrOptions, ""},
		{"an offset within a sector", Config{Offset: 512, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: 4096}}, testKey, unix.EINVAL, ""},
		{"a size within a sector", Config{SizeLimit: 4608, Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: 4096}}, testKey, unix.EINVAL, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.key != nil {
				tt.cfg.Key = secretOf(t, tt.key)
			}
			key := tt.cfg.Key
			// Nothing of this comes to the driver.
			_, err := Attach(nil, openPath(t, path), tt.cfg)
			wantHint(t, err, tt.want, path, tt.hint)
			if key != nil && key.Bytes() != nil {
				t.Error("the key is not closed")
			}
		})
	}
}

func TestTransferLimits(t *testing.T) {
	for name, change := range map[string]func(*backing){"disk": func(*backing) {}, "file": func(b *backing) { b.isDisk, b.punchHole = false, true }} {
		for _, allowed := range []bool{false, true} {
			b := oddBacking()
			change(b)
			b.transferSize, b.allowDiscards = b.sectorSize, allowed
			p, err := b.params(ublk.BufferCopy, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if (p.Discard.MaxSectors != 0) != allowed {
				t.Errorf("%s, discards allowed %v: %+v", name, allowed, p.Discard)
			}
			if p.MaxWriteZeroesSectors != 0 {
				t.Errorf("%s: write-zeroes of %d sectors", name, p.MaxWriteZeroesSectors)
			}
		}
	}
}

func TestTransferNeedsCopy(t *testing.T) {
	for _, zeroCopy := range []Switch{"", SwitchAuto, SwitchOff} {
		modes, err := bufferModes(&Config{ZeroCopy: zeroCopy, Transfer: TransferConfig{Name: transfer.XOR}})
		if err != nil || len(modes) != 1 || modes[0] != ublk.BufferCopy {
			t.Errorf("zero copy %q: modes %v, error %v", zeroCopy, modes, err)
		}
	}
}
