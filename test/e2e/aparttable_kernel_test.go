package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
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

// A server ends while the process that serves the requests merges the store. The merge ends early, and the
// next one finishes it.
func TestKernelApartMergeEnds(t *testing.T) {
	b := kernelBed(t, ublktest.Soak)
	const size, chunks = 96 << 20, 96 << 20 / 4096
	n := ublktest.Kills(b, 2, 2)
	ublktest.UntilHit(t, "the server ended within a merge", n, (n+1)/2, 10*n, func(int) bool {
		base := b.image(size)
		store := filepath.Join(filepath.Dir(base), "store")
		device := b.add(base, "--cow", store+",chunk=4K")
		b.checkApart(device)
		want := b.fillDevice(device, size)
		defer func() { // the machine has little memory
			for _, path := range []string{base, store} {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		}()
		ended := make(chan result, 1)
		go func() { ended <- b.run("merge", device.Device) }() // received below
		ublktest.Until(t, time.Minute, "chunks are merged", func() bool {
			info, err := cowfile.Inspect(store)
			if err != nil {
				t.Fatal(err)
			}
			return info.Chunks < chunks
		})
		server, err := unix.PidfdOpen(device.PID, 0)
		if err == nil {
			err = unix.Kill(device.PID, unix.SIGTERM)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.waitForEnd(server)
		<-ended
		var info struct{ Chunks uint64 }
		b.decode(b.ok("cow", "info", "--json", store), &info)
		b.ok("cow", "merge", store)
		if b.readFile(base) != want {
			t.Fatalf("the base has other data; %d chunks were left", info.Chunks)
		}
		return 0 < info.Chunks
	})
}
