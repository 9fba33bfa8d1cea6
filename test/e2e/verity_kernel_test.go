package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// verityImage is an image with its tree behind its data.
type verityImage struct {
	path, root string
	data       []byte
}

// verityImage makes an image of 2 MiB with the tree of veritysetup.
func (b *bed) verityImage() *verityImage {
	b.Helper()
	m := &verityImage{path: b.image(0), data: randomBytes(2 << 20)}
	if err := os.WriteFile(m.path, m.data, 0o600); err != nil {
		b.Fatal(err)
	}
	m.root = b.veritysetup(m.path, m.path, "--hash-offset=2097152", "--data-blocks=512")
	return m
}

// veritysetup makes a tree, and returns its root hash.
func (b *bed) veritysetup(args ...string) string {
	b.Helper()
	out := b.tool("veritysetup", append([]string{"format"}, args...)...)
	for line := range strings.Lines(out) {
		if value, found := strings.CutPrefix(line, "Root hash:"); found {
			return strings.TrimSpace(value)
		}
	}
	b.Fatalf("veritysetup prints no root hash: %s", out)
	return ""
}

// flip changes a bit of the image.
func (m *verityImage) flip(t *testing.T, at int64) {
	t.Helper()
	f, err := os.OpenFile(m.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c [1]byte
	if _, err = f.ReadAt(c[:], at); err == nil {
		_, err = f.WriteAt([]byte{c[0] ^ 4}, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// blockError reads one block of a device past the page cache, and returns the error.
func blockError(t *testing.T, device string, block int64) error {
	t.Helper()
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	_, err = unix.Pread(fd, mem, block*4096)
	return err
}

// waitForCorrupt waits until list shows that a device is corrupt.
func (b *bed) waitForCorrupt(device client.Device) {
	b.Helper()
	waitUntil(b, "list shows C", func() bool { return b.list(device.Device)[0].Verity == "C" })
	if out := b.ok("list", device.Device); !strings.Contains(out, "live (C)") {
		b.Errorf("list prints %s", out)
	}
}

// An image of veritysetup is served read-only, with the size of its data. A wrong block is EIO,
// is in the log, and makes list show C, also after a recovery.
func TestKernelAddRootHash(t *testing.T) {
	b := kernelBed(t, ublktest.OldestKernel)
	m := b.verityImage()
	log := filepath.Join(t.TempDir(), "log")
	device := b.add(m.path, "--root-hash", m.root, "--log-file", log, "--on-crash=reissue")
	if device.Size != 2<<20 || !device.ReadOnly || device.Verity != "V" || device.BufferMode != "copy" {
		t.Errorf("device %+v", device)
	}
	if out := b.ok("list"); !strings.Contains(out, "live (V)") {
		t.Errorf("list prints %s", out)
	}
	b.holds(device.Device, m.data)
	m.flip(t, 7*4096+11)
	if err := blockError(t, device.Device, 7); !errors.Is(err, unix.EIO) {
		t.Errorf("a wrong block: %v", err)
	}
	if err := blockError(t, device.Device, 8); err != nil {
		t.Errorf("the block behind a wrong one: %v", err)
	}
	b.waitForCorrupt(device)
	waitUntil(t, "the log has the block", func() bool {
		return strings.Contains(b.fileText(log), `"msg":"verity: data block 7 is corrupted"`)
	})
	m.flip(t, 7*4096+11)
	b.killServer(device)
	b.recover(device)
	b.waitForCorrupt(device)
	b.holds(device.Device, m.data)
	m.flip(t, 9*4096)
	if err := blockError(t, device.Device, 9); !errors.Is(err, unix.EIO) {
		t.Errorf("a wrong block after a recovery: %v", err)
	}
	b.del(device.Device)
}

// serve counts wrong blocks, and replaces itself under a device with verity.
func TestKernelServeRootHash(t *testing.T) {
	b := kernelBed(t)
	s := b.serve()
	m := b.verityImage()
	device := b.add(m.path, "--root-hash", m.root, "--on-crash=reissue")
	if device.PID != s.pid() {
		t.Errorf("device %+v, want one of process %d", device, s.pid())
	}
	m.flip(t, 2<<20-1)
	for range 3 {
		if err := blockError(t, device.Device, 511); !errors.Is(err, unix.EIO) {
			t.Errorf("a wrong block: %v", err)
		}
	}
	b.waitForCorrupt(device)
	sample := `ublk_loop_verity_corrupt_blocks_total{device="` + filepath.Base(device.Device) + `"} 3`
	if text := s.metrics(); !strings.Contains(text, sample) {
		t.Errorf("the metrics lack %s:\n%s", sample, text)
	}
	m.flip(t, 2<<20-1)
	b.ok("upgrade")
	b.holds(device.Device, m.data)
	b.waitForCorrupt(device)
	b.del(device.Device)
}
