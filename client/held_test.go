package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	// asked is called at each look at the devices, with the number of the look, before
	// the answer.
	asked func(look int)
	looks int

	calls sync.WaitGroup // running calls of asked
}

// onLook sets the function that is called at each look.
func (d *fakeDevices) onLook(asked func(look int)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = asked
}

// look calls asked without holding the mutex.
func (d *fakeDevices) look() {
	d.mu.Lock()
	d.looks++
	look, asked := d.looks, d.asked
	d.calls.Add(1)
	d.mu.Unlock()
	defer d.calls.Done()
	if asked != nil {
		asked(look)
	}
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
	d.look()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.device == nil {
		return nil
	}
	return []loop.Status{*d.device}
}

// become gives the number to another device, or to none.
func (d *fakeDevices) become(device *loop.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.device = device
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

// attachWhile attaches a file, and calls a function during one look at the device: during
// the first, after which the node appears, or during the second, when the device is open.
func attachWhile(t *testing.T, look int, meanwhile func(d *fakeDevices, stop func(), socket string)) (*client.Held, *fakeDevices, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, socket := &fakeDevices{node: filepath.Join(dir, "node")}, filepath.Join(dir, "socket")
	t.Cleanup(d.calls.Wait) // before the removal of the directory, in which they make the node
	stop := serveFake(t, d, socket)
	t.Cleanup(stop)
	d.onLook(func(n int) {
		if n == look {
			meanwhile(d, stop, socket)
		}
		if n == 1 {
			if err := os.WriteFile(d.node, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	req := client.AddRequest{File: path, Config: client.Config{ReadOnly: true}}
	h, err := client.New(socket).Attach(context.Background(), req, client.Files{File: file})
	return h, d, err
}

// A device is open before it is mounted, with close-on-exec, and closed after its
// removal.
func TestAttach(t *testing.T) {
	h, d, err := attachWhile(t, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk := h.Disk()
	if flags, err := unix.FcntlInt(disk.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of the open device: %#x, error %v", flags, err)
	}
	if h.IsLost(context.Background()) {
		t.Error("lost though it is there")
	}
	if err := h.Remove(context.Background()); err != nil {
		t.Error(err)
	}
	if want := []uint64{h.Device.FileInode}; !slices.Equal(d.removed, want) {
		t.Errorf("removed are devices of the inodes %d, not %d", d.removed, want)
	}
	if err := disk.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the device is open after its end: %v", err)
	}
	if !h.IsLost(context.Background()) {
		t.Error("not lost though it is removed")
	}
	h.Close()
}

// If the device has gone and another device has its number, Attach neither returns nor
// removes the other device.
func TestAttachLost(t *testing.T) {
	other := &loop.Status{FileDevice: "8:0", FileInode: 1, ReadOnly: true}
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
		for _, look := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, at look %d", name, look), func(t *testing.T) {
				_, d, err := attachWhile(t, look, meanwhile)
				if !errors.Is(err, client.ErrLost) || !errors.Is(err, unix.ENODEV) {
					t.Errorf("attach: %v", err)
				}
				if len(d.removed) > 0 {
					t.Errorf("removed are devices of the inodes %d", d.removed)
				}
			})
		}
	}
}

// A client can hold an existing device without a lease. It loses the device when the
// server ends.
func TestOpen(t *testing.T) {
	first, d, err := attachWhile(t, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	d.onLook(nil)
	c := client.New(filepath.Join(filepath.Dir(d.node), "socket"))
	h, err := c.Open(context.Background(), first.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.IsLost(context.Background()) {
		t.Error("lost though it is there")
	}
	d.become(nil)
	if !h.IsLost(context.Background()) {
		t.Error("not lost though it is removed")
	}
	if _, err := c.Open(context.Background(), first.Device); !errors.Is(err, client.ErrLost) {
		t.Errorf("open again: %v", err)
	}
}

// Attach stops waiting for the node when the lease has ended.
func TestAttachEndsWithItsLease(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	socket := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(client.Device{Device: filepath.Join(dir, "node"), FileDevice: "8:1"}); err != nil {
			t.Error(err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if r.Method == http.MethodPost {
			<-asked // then the answer ends, and with it the lease
		} else {
			close(asked)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = client.New(socket).Attach(ctx, client.AddRequest{File: "/x"}, client.Files{File: file})
	if !errors.Is(err, client.ErrLost) {
		t.Errorf("attach: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
