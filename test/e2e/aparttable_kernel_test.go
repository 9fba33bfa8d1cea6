package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Another process than the server serves the requests of a device of tables, also after a recovery: with
// files, ciphers, zeroes and errors.
func TestKernelApartTable(t *testing.T) {
	b := kernelBed(t)
	first, second, key := b.image(4<<20), b.image(4<<20), randomBytes(64)
	device := b.addTable(fmt.Sprintf("low,,,,0 8192 striped 2 16 %s 0 %s 64;top,,,,0 2048 crypt aes-xts-plain64 %x 0 /dev/mapper/low 8,"+
		"2048 2048 linear /dev/mapper/low 4096,4096 4096 zero,8192 8 error", first, second, key), "--standalone", "--on-crash=reissue")
	data := randomBytes(2 << 20)
	b.addKeyForTest("ublk-loop", key)
	for range 2 {
		b.checkApart(device)
		b.store(device.Device, data)
		if !bytes.Equal(b.head(device.Device), append(data, make([]byte, 2<<20)...)) {
			t.Error("it has other bytes than were written")
		}
		if err := blockError(t, device.Device, 1024); !errors.Is(err, unix.EIO) {
			t.Errorf("a read of the target error: %v", err)
		}
		b.killServer(device)
		device = b.recover(device)
	}
	b.del(device.Device)
}

// The process that serves an image with a hash tree tells the server about wrong blocks.
func TestKernelApartVerity(t *testing.T) {
	b := kernelBed(t)
	m := b.verityImage()
	log := filepath.Join(t.TempDir(), "log")
	device := b.add(m.path, "--root-hash", m.root, "--log-file", log, "--standalone")
	b.checkApart(device)
	b.holds(device.Device, m.data)
	m.flip(t, 7*4096+11)
	if err := blockError(t, device.Device, 7); !errors.Is(err, unix.EIO) {
		t.Errorf("a wrong block: %v", err)
	}
	b.waitForCorrupt(device)
	waitUntil(t, "the log has the block", func() bool {
		return strings.Contains(b.fileText(log), `"msg":"verity: data block 7 is corrupted"`)
	})
	b.del(device.Device)
}
