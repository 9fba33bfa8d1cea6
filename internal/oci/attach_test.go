package oci

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fakeDevices has room for one device, whose node is a file.
type fakeDevices struct {
	node string

	mu      sync.Mutex // protects the fields below
	device  *loop.Status
	removed []uint64 // inodes of the files
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
	d.device = &loop.Status{Device: d.node, FileDevice: identity.MajMin(st.Dev), FileInode: st.Ino, ReadOnly: cfg.ReadOnly}
	return *d.device, nil
}

// Remove accepts removals by a client only, not those of a server that ends while it
// answers.
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

func (d *fakeDevices) Release(uint32)            {}
func (d *fakeDevices) Keep(uint32) error         { return nil }
func (d *fakeDevices) Stats() []loop.DeviceStats { return nil }

// serveFake starts a server of devices at a socket. The returned function ends the server
// and with it all leases.
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
	return sync.OnceFunc(func() {
		if err := errors.Join(h.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// A device is open before it is mounted, and is removed if it is not mounted.
func TestAttach(t *testing.T) {
	for content, want := range map[string]string{"hsqs": "", "else": "no file system"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "image")
		if err := os.WriteFile(path, append([]byte(content), make([]byte, probeSize)...), 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := openImage([]string{dir}, path)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		r, err := parseRootfs(map[string]string{"dev.ublk-loop.rootfs.image": path})
		if err != nil {
			t.Fatal(err)
		}
		d, socket := &fakeDevices{node: path}, filepath.Join(dir, "socket")
		t.Cleanup(serveFake(t, d, socket))
		m := &Maker{Settings: &Settings{Socket: socket, AttachTimeout: time.Minute}}
		a, err := m.attach(image, r)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: error %v, want %q", content, err, want)
		}
		if err == nil {
			if a.fs.kind != squashfs || a.Disk() == nil {
				t.Errorf("it holds %q, and is open: %v", a.fs.kind, a.Disk())
			}
			a.end()
		}
		if len(d.removed) != 1 || d.device != nil {
			t.Errorf("%s: removed are devices of the inodes %d, left is %+v", content, d.removed, d.device)
		}
	}
}

// attach tries an image in use again until its device has gone.
func TestAttachInUse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, append([]byte("hsqs"), make([]byte, probeSize)...), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := openImage([]string{dir}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	d, socket := &fakeDevices{node: path, device: &loop.Status{}}, filepath.Join(dir, "socket")
	t.Cleanup(serveFake(t, d, socket))
	m := &Maker{Settings: &Settings{Socket: socket, AttachTimeout: 200 * time.Millisecond}}
	if _, err := m.attach(image, &rootfs{image: path}); !client.HasStatus(err, http.StatusConflict) {
		t.Errorf("in use for good: %v", err)
	}
	m.Settings.AttachTimeout = time.Minute
	time.AfterFunc(200*time.Millisecond, func() { _ = d.Remove(0, loop.DetachOptions{}) })
	a, err := m.attach(image, &rootfs{image: path})
	if err != nil {
		t.Fatalf("in use for a moment: %v", err)
	}
	a.end()
}

// The device must have the requested file system, if one is requested.
func TestProbeOfAnotherFileSystem(t *testing.T) {
	device := bytes.NewReader(append([]byte("hsqs"), make([]byte, probeSize)...))
	for fsType, want := range map[string]string{"": "", squashfs: "", ext4: "holds squashfs, not ext4"} {
		fs, err := (&rootfs{fsType: fsType}).probe(device)
		if fs.kind != squashfs || (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %+v, error %v, want %q", fsType, fs, err, want)
		}
	}
}
