package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device is removed completely also if the file system of the states has no space for a lock.
func TestKernelRemoveWithoutSpace(t *testing.T) {
	ctl := ublktest.Kernel(t)
	if err := os.MkdirAll(statefile.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", statefile.Dir, "tmpfs", 0, "size=64k,nr_inodes=64"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(statefile.Dir, 0); err != nil {
			t.Error(err)
		}
	}()
	fill := func() (clear func()) {
		dir := filepath.Join(statefile.Dir, "full")
		err := os.Mkdir(dir, 0o700)
		for i := 0; err == nil; i++ {
			err = unix.Mknod(filepath.Join(dir, fmt.Sprint(i)), unix.S_IFREG, 0)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		return func() { _ = os.RemoveAll(dir) }
	}
	for name, remove := range map[string]func(*Device) error{
		"close":  (*Device).Close,
		"detach": func(d *Device) error { return Detach(ctl, d.ID(), DetachOptions{}) },
	} {
		dev, err := attachPath(ctl, sparseFile(t, t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		clear := fill()
		if err := remove(dev); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := dev.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		clear()
		if left := traces(t); len(left) > 0 {
			t.Errorf("%s leaves %q", name, left)
		}
	}
}

// Without the lock of its state, the server of a device removes neither the state nor the device, because another device
// could get the id meanwhile.
func TestKernelCloseWithoutLock(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev, err := attachPath(ctl, sparseFile(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	id := dev.ID()
	path := filepath.Join(statefile.Dir, fmt.Sprint(id, ".lock"))
	if err := os.Mkdir(path, 0o700); err != nil { // it cannot be opened for writing
		t.Fatal(err)
	}
	if err := dev.Close(); !errors.Is(err, unix.EISDIR) {
		t.Errorf("close without a lock: error %v", err)
	}
	if _, err := os.Stat(statefile.Path(id)); err != nil {
		t.Errorf("its state: %v", err)
	}
	if info, err := ctl.Info(id); err != nil {
		t.Errorf("the device: %+v, error %v", info, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := Detach(ctl, id, DetachOptions{}); err != nil {
		t.Error(err)
	}
	if left := traces(t); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
