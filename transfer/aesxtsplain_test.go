package transfer

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"testing"

	"golang.org/x/crypto/xts"
)

// aes-xts-plain numbers sectors with 32 bits, and starts again at 0, also within a request.
func TestAESXTSPlain(t *testing.T) {
	key := make([]byte, 64)
	_, _ = rand.Read(key)
	other, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []Options{
		{SectorSize: 512}, {SectorSize: 512, IVOffset: 1<<32 - 3}, {SectorSize: 4096}, {SectorSize: 4096, IVOffset: 1<<32 - 8}, {SectorSize: 4096, IVLargeSectors: true, IVOffset: 1<<35 - 16},
	} {
		unit := uint64(opts.SectorSize / 512)
		for _, sector := range []uint64{0, 8, 1<<32 - 16, 1<<32 - 8, 1 << 32, 1<<40 + 8} {
			x, err := New(AESXTSPlain, newSecret(t, key), opts)
			if err != nil {
				t.Fatal(err)
			}
			plain := make([]byte, 40*int(opts.SectorSize))
			_, _ = rand.Read(plain)
			want := bytes.Clone(plain)
			for at := 0; at < len(want); at += int(opts.SectorSize) {
				iv := sector + opts.IVOffset + uint64(at/512)
				if opts.IVLargeSectors {
					iv /= unit
				}
				part := want[at:][:opts.SectorSize]
				other.Encrypt(part, part, uint64(uint32(iv)))
			}
			got := bytes.Clone(plain)
			x.Encrypt(got, sector)
			if !bytes.Equal(got, want) {
				t.Errorf("%+v: sector %d is encrypted otherwise", opts, sector)
			}
			if x.Decrypt(got, sector); !bytes.Equal(got, plain) {
				t.Errorf("%+v: sector %d is decrypted otherwise", opts, sector)
			}
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Its methods allocate nothing.
func TestAESXTSPlainAllocates(t *testing.T) {
	key := make([]byte, 64)
	_, _ = rand.Read(key)
	x, err := New(AESXTSPlain, newSecret(t, key), Options{SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	buf := make([]byte, 8192)
	if n := testing.AllocsPerRun(10, func() { x.Encrypt(buf, 1<<32-4); x.Decrypt(buf, 1<<32-4) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
