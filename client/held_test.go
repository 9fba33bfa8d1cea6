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
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/loop"
)

// attachWhile attaches a file, and calls a function during one look at the device: during
// the first, after which the node appears, or during the second, when the device is open.
func attachWhile(t *testing.T, look int, meanwhile func(d *controltest.Devices, stop func(), socket string)) (*client.Held, *controltest.Devices, error) {
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
	node, socket := filepath.Join(dir, "node"), filepath.Join(dir, "socket")
	d := controltest.NewDevices(node)
	t.Cleanup(d.Wait) // before the removal of the directory, in which they make the node
	stop := controltest.Serve(t, d, socket)
	d.OnLook(func(n int) {
		if n == look {
			meanwhile(d, stop, socket)
		}
		if n == 1 {
			if err := os.WriteFile(node, nil, 0o600); err != nil {
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
	if removed := d.Removed(); len(removed) != 1 || removed[0].FileInode != h.Device.FileInode {
		t.Errorf("removed are %+v, not one of inode %d", removed, h.Device.FileInode)
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
	for name, meanwhile := range map[string]func(d *controltest.Devices, stop func(), socket string){
		"another server's": func(d *controltest.Devices, stop func(), socket string) {
			stop()
			d.Become(0, other)
			controltest.Serve(t, d, socket)
		},
		"the same server's": func(d *controltest.Devices, _ func(), _ string) { d.Become(0, other) },
		"nobody's":          func(d *controltest.Devices, _ func(), _ string) { d.Become(0, nil) },
		"without a server":  func(_ *controltest.Devices, stop func(), _ string) { stop() },
	} {
		for _, look := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, at look %d", name, look), func(t *testing.T) {
				_, d, err := attachWhile(t, look, meanwhile)
				if !errors.Is(err, client.ErrLost) || !errors.Is(err, unix.ENODEV) {
					t.Errorf("attach: %v", err)
				}
				if removed := d.Removed(); len(removed) > 0 {
					t.Errorf("removed are %+v", removed)
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
	d.OnLook(nil)
	c := client.New(filepath.Join(filepath.Dir(first.Device.Device), "socket"))
	h, err := c.Open(context.Background(), first.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.IsLost(context.Background()) {
		t.Error("lost though it is there")
	}
	d.Become(0, nil)
	if !h.IsLost(context.Background()) {
		t.Error("not lost though it is removed")
	}
	if _, err := c.Open(context.Background(), first.Device); !errors.Is(err, client.ErrLost) {
		t.Errorf("open again: %v", err)
	}
}

// A device that has gone is not open after Reopen.
func TestReopenLost(t *testing.T) {
	h, d, err := attachWhile(t, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	d.OnLook(nil)
	h.Release()
	if err := h.Reopen(context.Background()); err != nil || h.Disk() == nil {
		t.Fatalf("the device is not open: %v", err)
	}
	h.Release()
	d.Become(0, &loop.Status{FileDevice: "8:0", FileInode: 1, ReadOnly: true})
	if err := h.Reopen(context.Background()); !errors.Is(err, client.ErrLost) || h.Disk() != nil {
		t.Errorf("%v is open, error %v", h.Disk(), err)
	}
}

// An answer that ends early is an error that says so, for each request.
func TestHalfAnAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write([]byte(`[{"id":1,`)); err != nil {
			t.Error(err)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	ctx, c, device := t.Context(), client.New(socket), client.Device{}
	for name, request := range map[string]func() error{
		"devices": func() error { _, err := c.Devices(ctx); return err },
		"fork":    func() error { _, err := c.Fork(ctx, &device, client.NewStore{Path: "/x"}); return err },
		"merge":   func() error { _, err := c.Merge(ctx, &device); return err },
		"reload":  func() error { _, err := c.Reload(ctx, &device, "", nil); return err },
		"add":     func() error { _, err := c.Add(ctx, client.AddRequest{}, client.Files{}); return err },
	} {
		if err := request(); err == nil || !strings.HasPrefix(err.Error(), "read the server's answer: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
