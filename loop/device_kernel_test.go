package loop

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/loop/internal/target"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// replaceable is a device that is being made. Its driver lets the test delete the device
// and add another one at any point.
type replaceable struct {
	fake *ublktest.Fake
	ctl  *ublk.Control
	dev  *Device
	cfg  Config
}

func addReplaceable(t *testing.T) *replaceable {
	t.Helper()
	ublktest.Kernel(t) // for the state directory, which all processes share
	r := &replaceable{fake: &ublktest.Fake{Offers: uapi.UBLK_F_CMD_IOCTL_ENCODE}, cfg: Config{ZeroCopy: SwitchOff}}
	r.ctl = ublk.NewControl(r.fake)
	b, err := openBacking(openPath(t, sparseFile(t, t.TempDir())), &r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.dev = &Device{b: b, storage: b}
	if r.dev.dev, _, err = addDevice(r.ctl, b, &r.cfg, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// replace acts as two other processes: one removes the device, another adds a device with
// the same id.
func (r *replaceable) replace(t *testing.T) {
	t.Helper()
	id := r.dev.ID()
	if err := r.ctl.Delete(id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ctl.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()}); err != nil {
		t.Fatal(err)
	}
	other := state{Status: &Status{ID: id, File: "/another"}}
	if err := other.write(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := statefile.Remove(id); err != nil {
			t.Error(err)
		}
	})
}

// The start of a device that was removed, and whose id another device has got, fails and
// does not affect the other device.
func TestKernelStartOfWhatWasReplaced(t *testing.T) {
	r := addReplaceable(t)
	r.replace(t)
	before := len(r.fake.Commands())
	if err := r.dev.start(&r.cfg, &target.Target{Backing: r.dev.b}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("start: error %v, want ENODEV", err)
	}
	if err := r.dev.remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
	for _, cmd := range r.fake.Commands()[before:] {
		if cmd.Op != uapi.UBLK_U_CMD_GET_DEV_INFO {
			t.Errorf("the next device got command %#x", cmd.Op)
		}
	}
	if saved, err := readState(r.dev.ID()); err != nil || saved == nil || saved.Status.File != "/another" {
		t.Errorf("the next device has the state %+v, error %v", saved, err)
	}
}

// If the device was only removed, its removal deletes the state, but does not delete a
// device that may come later.
func TestKernelRemoveOfWhatIsGone(t *testing.T) {
	r := addReplaceable(t)
	id := r.dev.ID()
	left := state{Status: &Status{ID: id}}
	if err := errors.Join(r.ctl.Delete(id), left.write()); err != nil {
		t.Fatal(err)
	}
	before := len(r.fake.Commands())
	if err := r.dev.remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
	if slices.ContainsFunc(r.fake.Commands()[before:], func(cmd ublk.Command) bool { return cmd.Op == uapi.UBLK_U_CMD_DEL_DEV }) {
		t.Error("another device may have been deleted")
	}
	if _, err := os.Stat(statefile.Path(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its state: %v", err)
	}
}

// While a device is being started, other processes that want to remove it wait until it
// is open.
func TestKernelStartKeepsTheID(t *testing.T) {
	r := addReplaceable(t)
	id := r.dev.ID()
	lock, err := statefile.Acquire(id) // del holds this lock
	if err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(lock.Release)
	defer release()
	before := len(r.fake.Commands())
	started := make(chan error)
	go func() { started <- r.dev.start(&r.cfg, &target.Target{Backing: r.dev.b}) }() // received below
	waitUntil(t, "a start that waits for the lock", func() bool { return waitsForLock(t) })
	if n := len(r.fake.Commands()); n != before {
		t.Errorf("%d commands without the lock", n-before)
	}
	r.replace(t)
	release()
	if err := <-started; !errors.Is(err, unix.ENODEV) {
		t.Errorf("start: error %v, want ENODEV", err)
	}
	if err := r.dev.remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// waitsForLock reports whether any process waits for a file lock.
func waitsForLock(t *testing.T) bool {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(locks), "->")
}

// A prepared device keeps its id: deleting it does not free the id for another device.
func TestKernelPreparedDeviceKeepsItsID(t *testing.T) {
	ctl := ublktest.Kernel(t)
	cfg := Config{ZeroCopy: SwitchOff}
	b, err := openBacking(openPath(t, sparseFile(t, t.TempDir())), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{b: b, storage: b}
	if d.dev, _, err = addDevice(ctl, b, &cfg, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.prepare(&cfg); err != nil {
		t.Error(err)
	}
	id := d.ID()
	if err := ctl.Delete(id); !errors.Is(err, ublk.ErrLingers) {
		t.Errorf("delete: error %v, want ErrLingers", err)
	}
	if dev, err := ctl.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("add: error %v, want EEXIST", err)
		if err == nil {
			_ = dev.Close()
		}
	}
	if err := d.remove(); err != nil {
		t.Errorf("remove: %v", err)
	}
}
