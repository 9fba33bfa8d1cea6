package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fakeDevices is a driver with few device numbers. The device nodes are files.
type fakeDevices struct {
	dir string

	mu      sync.Mutex // protects the fields below
	devices [2]*loop.Status
	removed []loop.Status
	inUse   bool // Remove returns an error
}

func (d *fakeDevices) Add(file *os.File, cfg loop.Config) (loop.Status, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return loop.Status{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.devices {
		if d.devices[i] == nil {
			d.devices[i] = &loop.Status{
				ID: uint32(i), Device: filepath.Join(d.dir, fmt.Sprint(i)), ReadOnly: cfg.ReadOnly,
				FileDevice: fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), FileInode: st.Ino,
			}
			return *d.devices[i], nil
		}
	}
	return loop.Status{}, unix.ENOSPC
}

// Remove accepts removals by a client only, not those of a server that ends while it
// answers.
func (d *fakeDevices) Remove(id uint32, opts loop.DetachOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case opts.Force || d.devices[id] == nil:
		return unix.ENODEV
	case d.inUse:
		return loop.ErrInUse
	}
	d.removed = append(d.removed, *d.devices[id])
	d.devices[id] = nil
	return nil
}

func (d *fakeDevices) Devices() []loop.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []loop.Status
	for _, s := range d.devices {
		if s != nil {
			list = append(list, *s)
		}
	}
	return list
}

func (d *fakeDevices) Release(uint32)            {}
func (d *fakeDevices) Keep(uint32) error         { return nil }
func (d *fakeDevices) Stats() []loop.DeviceStats { return nil }

// change calls f with the lock held.
func (d *fakeDevices) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// with returns a snapshotter with a server whose devices are files, a label that names an
// image, and a function that ends the server and with it all leases.
func with(t *testing.T) (s *Snapshotter, d *fakeDevices, label snapshots.Opt, stop func()) {
	t.Helper()
	s, o := without(t)
	dir := filepath.Dir(o.Root)
	d = &fakeDevices{dir: dir}
	for _, name := range []string{"image", "0", "1"} {
		if err := os.WriteFile(filepath.Join(dir, name), append([]byte("hsqs"), make([]byte, 8192)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, d, snapshots.WithLabels(map[string]string{ImageLabel: filepath.Join(dir, "image")}), serveFake(t, d, o.Settings.Socket)
}

func serveFake(t *testing.T, d *fakeDevices, socket string) (stop func()) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	h := (&control.Server{
		Devices:  d,
		Describe: func(err error, _ string, _ *loop.Config) error { return err },
		Hint:     func(error) string { return "" },
	}).HTTP()
	done := make(chan error)
	go func() { done <- control.Serve(h, l) }() // stop waits for it
	stop = sync.OnceFunc(func() {
		if err := errors.Join(h.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// isOpen reports whether this process has the file open.
func isOpen(t *testing.T, path string) bool {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(fds, func(fd string) bool {
		open, err := os.Readlink(fd)
		return err == nil && open == path
	})
}

// The snapshotter keeps a device open from the time that containerd gets its number until
// the snapshotter tries to remove it, even if the server ends. So the number cannot
// become another device's.
func TestNumberStays(t *testing.T) {
	ctx := context.Background()
	s, d, label, stop := with(t)
	mounts, err := s.Prepare(ctx, "a", "", label)
	if err != nil {
		t.Fatal(err)
	}
	node := mounts[0].Source
	if !isOpen(t, node) {
		t.Errorf("%s is not open", node)
	}
	d.change(func() { d.inUse = true })
	if err := s.Remove(ctx, "a"); err == nil {
		t.Error("removed while in use")
	}
	if isOpen(t, node) {
		t.Error("open after an attempt to remove it")
	}
	if again, err := s.Mounts(ctx, "a"); err != nil || again[0].Source != node || !isOpen(t, node) {
		t.Errorf("mounts %v, error %v, open %v", again, err, isOpen(t, node))
	}
	stop()
	if !isOpen(t, node) {
		t.Errorf("%s is not open after the server's end", node)
	}
}

// A snapshot whose device is gone gets another device. The old number may belong to
// another client's device, which must not be removed.
func TestNumberLost(t *testing.T) {
	ctx := context.Background()
	s, d, label, _ := with(t)
	mounts, err := s.Prepare(ctx, "a", "", label)
	if err != nil {
		t.Fatal(err)
	}
	other := &loop.Status{Device: mounts[0].Source, FileDevice: "8:0", FileInode: 1, ReadOnly: true}
	d.change(func() { d.devices[0] = other })
	again, err := s.Mounts(ctx, "a")
	if err != nil || again[0].Source == mounts[0].Source || !isOpen(t, again[0].Source) || isOpen(t, mounts[0].Source) {
		t.Errorf("mounts %v, error %v", again, err)
	}
	d.change(func() { d.devices[1] = &loop.Status{ID: 1, Device: again[0].Source, FileInode: 2, ReadOnly: true} })
	if err := s.Remove(ctx, "a"); err != nil {
		t.Error(err)
	}
	if len(d.removed) > 0 {
		t.Errorf("removed are %+v", d.removed)
	}
}
