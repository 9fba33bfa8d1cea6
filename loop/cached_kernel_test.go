package loop

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device that writes with direct I/O leaves no pages of its file in the page cache,
// neither older ones nor those that attaching has read. A read-only device leaves the
// page cache alone.
func TestKernelDropsCachedPages(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := filepath.Join(fileSystem(t, "ext4"), "image")
	data := bytes.Repeat([]byte("cached "), 1<<20)
	if err := os.WriteFile(path, data[:4<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	file := openFile(t, path, os.O_RDWR)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	all := cachedPages(t, file)
	if all == 0 {
		t.Fatal("nothing of the file is cached: this finds nothing out")
	}

	for _, cfg := range []Config{{ReadOnly: true}, {DirectIO: SwitchOff}} {
		dev := attach(t, ctl, path, cfg)
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		if now := cachedPages(t, file); now != all {
			t.Errorf("%+v: of %d pages %d are cached", cfg, all, now)
		}
	}
	dev := attach(t, ctl, path, Config{DirectIO: SwitchOn})
	waitUntil(t, "no page of the file is cached", func() bool { return cachedPages(t, file) == 0 })
	if got := readAll(t, dev); !bytes.Equal(got, data[:4<<20]) {
		t.Error("it has another content")
	}
}

// cachedPages returns the number of a file's pages in the page cache (cachestat(2), Linux
// 6.5).
func cachedPages(t *testing.T, file *os.File) uint64 {
	t.Helper()
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(file.Fd()), &unix.CachestatRange{}, &stat, 0)
	if errors.Is(err, unix.ENOSYS) {
		ublktest.Lacks(t, ublktest.CountsCachedPages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return stat.Cache
}

// readAll returns the content of a device.
func readAll(t *testing.T, dev *Device) []byte {
	t.Helper()
	data, err := os.ReadFile(dev.Path())
	if err != nil {
		t.Fatal(err)
	}
	return data
}
