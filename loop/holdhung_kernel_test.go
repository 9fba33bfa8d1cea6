package loop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A Hold of a server gives up if records cannot be saved, or if something else holds a device. Meanwhile all
// devices keep their requests, so it must not wait for a disk.
func TestKernelServerHoldWithHungStore(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Waits)
	store := mappedDisk(t, "0 32768 linear "+nullDisk(t, 16, map[string]string{"cache_size": "8"})+" 0")
	origin, file := filledDisk(t, 8), sparseFile(t, mountTmpfs(t))
	s := NewServer(ctl, ServerOptions{})
	hangs := false
	resumeStore := func() {
		if hangs {
			run(t, "dmsetup", "resume", "--noudevsync", mappedName)
			hangs = false
		}
	}
	t.Cleanup(func() {
		resumeStore()
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	files := []*os.File{openPath(t, origin), openPath(t, store)}
	text := fmt.Sprintf("0 16384 snapshot %s %s P 8", origin, store)
	snapshot, err := s.AddTable(files, Config{Table: text, OnCrash: CrashReissue})
	if err != nil {
		t.Fatal(err)
	}
	other, _ := addTo(t, s, file, nil)
	disk := openFile(t, other.dev.Path(), os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 4096)
	refused := func(what string) {
		t.Helper()
		err := within(t, what, func() error {
			_, err := s.Hold(time.Second)
			return err
		})
		if !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), snapshot.Device) || strings.Contains(err.Error(), other.dev.Path()) {
			t.Errorf("%s: error %v, want one that names %s", what, err, snapshot.Device)
		}
		if err := within(t, "a write to the other device", func() error { _, err := disk.WriteAt(mem, 0); return err }); err != nil {
			t.Error(err)
		}
	}
	run(t, "dmsetup", "suspend", "--noflush", "--nolockfs", "--noudevsync", mappedName)
	hangs = true
	refused("a hold while the store hangs")
	resumeStore()
	d, err := s.find(snapshot.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !d.dev.holding.TryLock() {
		t.Fatal("something else holds the device")
	}
	refused("a hold beside another one")
	d.dev.holding.Unlock()
	resume, err := s.Hold(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	resume()
}
