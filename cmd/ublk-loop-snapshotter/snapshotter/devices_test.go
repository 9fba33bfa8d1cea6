package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/loop"
)

// with returns a snapshotter with a server whose devices are files, a label that names an
// image, and a function that ends the server and with it all leases.
func with(t *testing.T) (s *Snapshotter, d *controltest.Devices, label snapshots.Opt, stop func()) {
	t.Helper()
	s, o := without(t)
	dir := filepath.Dir(o.Root)
	d = controltest.NewDevices(filepath.Join(dir, "0"), filepath.Join(dir, "1"))
	for _, name := range []string{"image", "0", "1"} {
		if err := os.WriteFile(filepath.Join(dir, name), append([]byte("hsqs"), make([]byte, 8192)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, d, snapshots.WithLabels(map[string]string{ImageLabel: filepath.Join(dir, "image")}), controltest.Serve(t, d, o.Settings.Socket)
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
	d.SetInUse()
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
	d.Become(0, other)
	again, err := s.Mounts(ctx, "a")
	if err != nil || again[0].Source == mounts[0].Source || !isOpen(t, again[0].Source) || isOpen(t, mounts[0].Source) {
		t.Errorf("mounts %v, error %v", again, err)
	}
	d.Become(1, &loop.Status{ID: 1, Device: again[0].Source, FileInode: 2, ReadOnly: true})
	if err := s.Remove(ctx, "a"); err != nil {
		t.Error(err)
	}
	if removed := d.Removed(); len(removed) > 0 {
		t.Errorf("removed are %+v", removed)
	}
}

// A server that does not answer keeps no request longer than some times attach_timeout, so that the lock of a snapshot
// is free again and the program can end.
func TestSilentServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, d, label, _ := with(t)
	s.settings.AttachTimeout = 100 * time.Millisecond
	if _, err := s.Prepare(ctx, "a", "", label); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	d.OnLook(func(int) { <-end })
	defer d.Wait()
	defer close(end)
	if err := s.Remove(ctx, "a"); ctx.Err() != nil {
		t.Fatal("remove waits for the server")
	} else if err != nil && !errdefs.IsUnavailable(err) {
		t.Errorf("remove: %v", err)
	}
	if _, err := s.Prepare(ctx, "b", "", label); ctx.Err() != nil {
		t.Errorf("prepare waits for the server: %v", err)
	}
}
