package backing

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

func TestTransferSectorSizes(t *testing.T) {
	file, disk512, disk4K := Backing{FD: -1}, Backing{IsDisk: true}, Backing{IsDisk: true}
	disk512.queue.logicalBlockSize = 512
	disk4K.queue.logicalBlockSize = 4096
	for _, tt := range []struct {
		name           string
		b              *Backing
		asked, own     uint32 // sector sizes of the device and of the transfer
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
		o := &Options{SectorSize: tt.asked, Transfer: &Transfer{SectorSize: tt.own}}
		device, err := tt.b.chooseSectorSize(o, 1<<20)
		var cipher uint32
		if err == nil {
			cipher = o.Transfer.sectorSizeOn(device)
		}
		switch {
		case tt.device == 0 && !errors.Is(err, unix.EINVAL):
			t.Errorf("%s: sectors of %d and %d, error %v, want EINVAL", tt.name, device, cipher, err)
		case tt.device != 0 && (err != nil || device != tt.device || cipher != tt.cipher):
			t.Errorf("%s: sectors of %d and %d, error %v, want %d and %d", tt.name, device, cipher, err, tt.device, tt.cipher)
		}
	}
}

// A partition table behind a cipher does not count.
func TestTransferHidesPartitionTable(t *testing.T) {
	o := Options{Transfer: &Transfer{}}
	path := newFile(t, "image", 1<<20)
	writeAt(t, path, newTable(256), 4096)
	b, err := openFor(t, path, o)
	if err != nil {
		t.Fatal(err)
	}
	if b.SectorSize != 512 {
		t.Errorf("sectors of %d", b.SectorSize)
	}
}

func TestTransferLimits(t *testing.T) {
	for name, change := range map[string]func(*Backing){"disk": func(*Backing) {}, "file": func(b *Backing) { b.IsDisk, b.punchHole = false, true }} {
		for _, allowed := range []bool{false, true} {
			b := oddBacking()
			change(b)
			b.TransferSize, b.allowDiscards = b.SectorSize, allowed
			p, err := b.Params(ublk.BufferCopy, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if (p.Discard.MaxBytes != 0) != allowed {
				t.Errorf("%s, discards allowed %v: %+v", name, allowed, p.Discard)
			}
			if p.MaxWriteZeroesBytes != 0 {
				t.Errorf("%s: write-zeroes of %d bytes", name, p.MaxWriteZeroesBytes)
			}
		}
	}
}
