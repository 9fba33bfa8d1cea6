package oci

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fakeDevices has one number for a device, whose node is a file.
type fakeDevices struct {
	node string

	mu      sync.Mutex // protects what is below
	device  *loop.Status
	removed []uint64 // the files' inodes
}

func (d *fakeDevices) Add(file *os.File, cfg loop.Config) (loop.Status, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return loop.Status{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device != nil {
		return loop.Status{}, unix.EBUSY
	}
	d.device = &loop.Status{Device: d.node, FileInode: st.Ino, ReadOnly: cfg.ReadOnly}
	return *d.device, nil
}

// Remove removes for a client, not for a server that ends while it answers.
func (d *fakeDevices) Remove(_ uint32, opts loop.DetachOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device == nil || opts.Force {
		return unix.ENODEV
	}
	d.removed = append(d.removed, d.device.FileInode)
	d.device = nil
	return nil
}

func (d *fakeDevices) Devices() []loop.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device == nil {
		return nil
	}
	return []loop.Status{*d.device}
}

// become makes the number another device's, or nobody's.
func (d *fakeDevices) become(device *loop.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.device = device
}

func (d *fakeDevices) Release(uint32)            {}
func (d *fakeDevices) Keep(uint32) error         { return nil }
func (d *fakeDevices) Stats() []loop.DeviceStats { return nil }

// serveFake starts a server of devices at a socket, and returns what ends it, and
// all leases with it.
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
	go func() { done <- control.Serve(h, l) }() // waited for by stop
	return sync.OnceFunc(func() {
		if err := errors.Join(h.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// testImage returns an image, what asks for it, and the path of a socket for a server.
func testImage(t *testing.T) (image *os.File, r *rootfs, socket string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, append([]byte("hsqs"), make([]byte, probeSize)...), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := openImage([]string{dir}, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = image.Close() })
	r, err = parseRootfs(map[string]string{"dev.ublk-loop.rootfs.image": path})
	if err != nil {
		t.Fatal(err)
	}
	return image, r, filepath.Join(dir, "socket")
}

// attachWhile attaches an image, and calls a function between that and the look
// at the device.
func attachWhile(t *testing.T, meanwhile func(d *fakeDevices, stop func(), socket string)) (*attached, *fakeDevices, error) {
	t.Helper()
	image, r, socket := testImage(t)
	d := &fakeDevices{node: image.Name()}
	stop := serveFake(t, d, socket)
	t.Cleanup(stop)
	m := &Maker{
		Settings: &Settings{Socket: socket, AttachTimeout: time.Minute},
		OpenDevice: func(context.Context, string) error {
			meanwhile(d, stop, socket)
			return nil
		},
	}
	a, err := m.attach(image, r)
	return a, d, err
}

// A device is open when it is to be mounted, which nothing that is executed
// inherits, and is removed if it is not.
func TestAttach(t *testing.T) {
	a, d, err := attachWhile(t, func(*fakeDevices, func(), string) {})
	if err != nil {
		t.Fatal(err)
	}
	if a.fs.kind != squashfs {
		t.Errorf("it holds %q", a.fs.kind)
	}
	if flags, err := unix.FcntlInt(a.disk.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of the open device: %#x, error %v", flags, err)
	}
	a.end()
	if want := []uint64{a.lease.Device.FileInode}; !slices.Equal(d.removed, want) {
		t.Errorf("removed are devices of the inodes %d, not %d", d.removed, want)
	}
	if err := a.disk.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the device is open after its end: %v", err)
	}
}

// The number of a device that has gone is another's, which is not taken for it,
// nor removed.
func TestAttachLost(t *testing.T) {
	other := &loop.Status{FileInode: 1, ReadOnly: true}
	for name, meanwhile := range map[string]func(d *fakeDevices, stop func(), socket string){
		"another server's": func(d *fakeDevices, stop func(), socket string) {
			stop()
			d.become(other)
			t.Cleanup(serveFake(t, d, socket))
		},
		"the same server's": func(d *fakeDevices, _ func(), _ string) { d.become(other) },
		"nobody's":          func(d *fakeDevices, _ func(), _ string) { d.become(nil) },
		"without a server":  func(_ *fakeDevices, stop func(), _ string) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			_, d, err := attachWhile(t, meanwhile)
			if !errors.Is(err, unix.ENODEV) {
				t.Errorf("attach: %v", err)
			}
			if len(d.removed) > 0 {
				t.Errorf("removed are devices of the inodes %d", d.removed)
			}
		})
	}
}

// A device that does not appear is not waited for once its lease has ended.
func TestAttachEndsWithItsLease(t *testing.T) {
	image, r, socket := testImage(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(loop.Status{Device: "/nothing"}); err != nil {
			t.Error(err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-end // of the lease, with the answer's
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	m := &Maker{
		Settings: &Settings{Socket: socket, AttachTimeout: time.Minute},
		OpenDevice: func(ctx context.Context, _ string) error {
			close(end)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
				t.Error("still waiting for the device")
			}
			return context.Cause(ctx)
		},
	}
	if _, err := m.attach(image, r); !errors.Is(err, unix.ENODEV) {
		t.Errorf("attach: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
