package loop

import (
	"bytes"
	"crypto/aes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// testKey is the key of all tests with a transfer.
var testKey = []byte("the first half of a key is not .. the second half of the key ...")

func secretOf(t testing.TB, content []byte) *transfer.Secret {
	t.Helper()
	s, err := transfer.NewSecret(len(content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	copy(s.Bytes(), content)
	return s
}

type direction bool

const (
	encrypt direction = true
	decrypt direction = false
)

// transferred returns n bytes of a device after a configuration's transfer. Its code is
// independent of the tested code: it implements aes-xts-plain64 as the documentation of
// dm-crypt describes it (Documentation/admin-guide/device-mapper/dm-crypt.rst).
func transferred(t testing.TB, cfg Config, device []byte, off, n int, to direction) []byte {
	t.Helper()
	out := bytes.Clone(device[off : off+n])
	c := cfg.Transfer
	if c.isNone() {
		return out
	}
	cipher, err := xts.NewCipher(aes.NewCipher, testKey)
	if err != nil {
		t.Fatal(err)
	}
	size := int(max(cfg.SectorSize, 512))
	if c.SectorSize != 0 {
		size = int(c.SectorSize)
	}
	for at := 0; at < n; at += size {
		iv := uint64(off+at)/512 + c.IVOffset
		if c.IVLargeSectors {
			iv /= uint64(size / 512)
		}
		if sector := out[at : at+size]; to == encrypt {
			cipher.Encrypt(sector, sector, iv)
		} else {
			cipher.Decrypt(sector, sector, iv)
		}
	}
	return out
}

// plainCopy returns a file with the decrypted first n bytes of a device's file.
func plainCopy(t *testing.T, cfg Config, path string, n int) string {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, transferred(t, cfg, file, 0, n, decrypt), 0o600); err != nil {
		t.Fatal(err)
	}
	return plain
}

// A device with a transfer and its file have the contents that the transfer defines, for
// every request size and way of counting sectors.
func TestKernelTransfer(t *testing.T) {
	ctl := ublktest.Kernel(t)
	const offset, size = 1 << 20, 512 << 10
	for _, c := range []TransferConfig{
		{},
		{IVOffset: 8},
		{IVLargeSectors: true},
		{IVOffset: 1 << 40, IVLargeSectors: true},
		{SectorSize: 512},
	} {
		for _, sectorSize := range []uint32{512, 1024, 2048, 4096} {
			if c.SectorSize != 0 && sectorSize != c.SectorSize {
				continue
			}
			c.Name = transfer.AESXTSPlain64
			cfg := Config{Transfer: c, SectorSize: sectorSize, Offset: offset, SizeLimit: size}
			t.Run(fmt.Sprintf("sectors of %d, %+v", sectorSize, c), func(t *testing.T) {
				backing := nullDisk(t, 64, nil)
				file := openFile(t, backing, os.O_RDWR|unix.O_DIRECT)
				disk := openFile(t, attach(t, ctl, backing, cfg).Path(), os.O_RDWR|unix.O_DIRECT)
				plain := random(alignedMemory(t, size))
				for off, n := 0, 4096; off < size; off, n = off+n, min(2*n, size-off-n) {
					if _, err := disk.WriteAt(plain[off:off+n], int64(off)); err != nil {
						t.Fatal(err)
					}
				}
				got := alignedMemory(t, size)
				if _, err := file.ReadAt(got, offset); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, transferred(t, cfg, plain, 0, size, encrypt)) {
					t.Error("the file has other bytes")
				}
				stored := random(alignedMemory(t, size))
				if _, err := file.WriteAt(stored, offset); err != nil {
					t.Fatal(err)
				}
				if _, err := disk.ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, transferred(t, cfg, stored, 0, size, decrypt)) {
					t.Error("the device has other bytes")
				}
			})
		}
	}
}

// The end of a device wipes its key.
func TestKernelTransferIsWiped(t *testing.T) {
	ctl := ublktest.Kernel(t)
	cfg := Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}
	dev := attach(t, ctl, sparseFile(t, t.TempDir()), cfg)
	dev.transfer.Encrypt(make([]byte, 512), 0)
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("the cipher has its key still")
		}
	}()
	dev.transfer.Encrypt(make([]byte, 512), 0)
}

// The disk has larger sectors than those that are encrypted. That happens when an old
// volume is copied to a new disk.
func TestKernelTransferOnLargeSectors(t *testing.T) {
	ctl := ublktest.Kernel(t)
	backing := nullDisk(t, 64, map[string]string{"blocksize": "4096"})
	cfg := Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64, SectorSize: 512}}
	dev := attach(t, ctl, backing, cfg)
	if got := dev.Status().Limits.LogicalBlockSize; got != 4096 {
		t.Errorf("sectors of %d", got)
	}
	disk := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	plain, got := random(alignedMemory(t, 64<<10)), alignedMemory(t, 64<<10)
	if _, err := disk.WriteAt(plain, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := openFile(t, backing, os.O_RDONLY|unix.O_DIRECT).ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, transferred(t, cfg, plain, 0, len(plain), encrypt)) {
		t.Error("the disk has other bytes")
	}
}

// As with dm-crypt, discards must be allowed. The device announces no write-zeroes,
// because zeroes of the backing would be decrypted to something else.
func TestKernelTransferDiscards(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for allowed, want := range map[bool]bool{false: false, true: true} {
		for _, path := range []string{nullDisk(t, 64, nil), sparseFile(t, fileSystem(t, "ext4"))} {
			cfg := Config{Transfer: TransferConfig{Name: transfer.AESXTSPlain64, AllowDiscards: allowed}}
			dev := attach(t, ctl, path, cfg)
			disk := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			if err := blockIoctl(disk, unix.BLKDISCARD, 0, 1<<20); (err == nil) != want {
				t.Errorf("%s, allowed %v: discard: %v", path, allowed, err)
			}
			if n := dev.Status().Limits.WriteZeroesMaxBytes; n != 0 {
				t.Errorf("%s: write-zeroes of %d bytes", path, n)
			}
			mem := random(alignedMemory(t, 1<<20))
			if _, err := disk.WriteAt(mem, 0); err != nil {
				t.Fatal(err)
			}
			if err := blockIoctl(disk, unix.BLKZEROOUT, 0, 1<<20); err != nil {
				t.Fatal(err)
			}
			if _, err := disk.ReadAt(mem, 0); err != nil {
				t.Fatal(err)
			}
			if strings.Trim(string(mem), "\x00") != "" {
				t.Errorf("%s: zeroes read as something else", path)
			}
		}
	}
}
