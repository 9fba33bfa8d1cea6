package transfer

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"testing/quick"

	"golang.org/x/crypto/xts"
)

// plain64 encrypts sector by sector with another implementation, and numbers
// sectors as dm-crypt does (crypt_convert_block_skcipher and
// crypt_iv_plain64_gen in drivers/md/dm-crypt.c).
func plain64(t testing.TB, key, buf []byte, sector uint64, opts Options) []byte {
	t.Helper()
	cipher, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(buf)
	size := int(opts.SectorSize)
	for at := 0; at < len(out); at += size {
		iv := sector + uint64(at/512) + opts.IVOffset
		if opts.IVLargeSectors {
			iv /= uint64(size / 512)
		}
		cipher.Encrypt(out[at:at+size], out[at:at+size], iv)
	}
	return out
}

func TestAESXTSPlain64(t *testing.T) {
	for _, keyBytes := range []int{32, 64} {
		for _, sectorSize := range []uint32{512, 1024, 2048, 4096} {
			for _, large := range []bool{false, true} {
				t.Run(fmt.Sprintf("key of %d, sectors of %d, large %v", keyBytes, sectorSize, large), func(t *testing.T) {
					key := make([]byte, keyBytes)
					_, _ = rand.Read(key)
					matches := func(sector, offset uint64, n uint8) bool {
						// A request and the iv offset start at a sector of the
						// transform.
						unit := uint64(sectorSize / 512)
						opts := Options{SectorSize: sectorSize, IVOffset: offset / unit * unit, IVLargeSectors: large}
						return encryptsAsOther(t, key, sector%(1<<50)/unit*unit, int(n)%9+1, opts)
					}
					if err := quick.Check(matches, nil); err != nil {
						t.Error(err)
					}
					for _, sector := range []uint64{0, 8} { // 0 is the last one before the sum starts again
						if last := uint64(math.MaxUint64) / 8 * 8; !matches(sector, last, 17) {
							t.Errorf("an iv that wraps around, from sector %d", sector)
						}
					}
				})
			}
		}
	}
}

// encryptsAsOther encrypts a buffer of n sectors, compares the result with
// plain64, and decrypts it.
func encryptsAsOther(t testing.TB, key []byte, sector uint64, n int, opts Options) bool {
	t.Helper()
	x, err := New(AESXTSPlain64, newSecret(t, key), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = x.Close() }()
	plain := make([]byte, n*int(opts.SectorSize))
	for at := 0; at < len(plain); at += 8 {
		binary.LittleEndian.PutUint64(plain[at:], sector+uint64(at))
	}
	buf := bytes.Clone(plain)
	x.Encrypt(buf, sector)
	if !bytes.Equal(buf, plain64(t, key, plain, sector, opts)) {
		return false
	}
	x.Decrypt(buf, sector)
	return bytes.Equal(buf, plain)
}

// Close wipes the round keys: nothing can be encrypted with them afterwards.
func TestAESXTSCloseWipes(t *testing.T) {
	x, err := New(AESXTSPlain64, newSecret(t, bytes.Repeat([]byte("0123456789abcdef\x00"), 4)[:64]), Options{SectorSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("it encrypts after Close")
		}
	}()
	x.Encrypt(make([]byte, 512), 0)
}

func TestTransfersAllocateNothing(t *testing.T) {
	key := make([]byte, 64)
	_, _ = rand.Read(key)
	buf := make([]byte, 256<<10)
	for _, name := range []string{XOR, AESXTSPlain64} {
		x := newTest(t, name, key, Options{SectorSize: 512})
		n := testing.AllocsPerRun(10, func() {
			x.Encrypt(buf, 1)
			x.Decrypt(buf, 1)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
