package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/control/controltest"
	"github.com/ublk-loop/ublk-loop/loop"
)

// If the device of an image is being removed, attach waits for that and makes another one. It does so
// also if the server still has the device when the node has gone.
func TestAttachDuringRemoval(t *testing.T) {
	for gone := 2; gone <= 3; gone++ {
		t.Run(fmt.Sprint("gone at look ", gone), func(t *testing.T) { attachDuringRemoval(t, gone) })
	}
}

// attachDuringRemoval removes the device at a look at the devices of the server. With look 1 attach
// finds it, and with the next ones it opens it.
func attachDuringRemoval(t *testing.T, gone int) {
	dir := t.TempDir()
	path, node, socket := filepath.Join(dir, "image"), filepath.Join(dir, "node"), filepath.Join(dir, "socket")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	d := controltest.NewDevices(node)
	defer d.Wait()
	old := statusOf(t, image, node)
	d.Become(0, old)
	d.OnLook(func(look int) {
		switch look {
		case gone:
			d.Become(0, nil)
		case gone + 1:
			if err := os.WriteFile(node, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	controltest.Serve(t, d, socket)
	s := &devices{server: newServer(socket)}
	held, err := s.attach(context.Background(), image, func() (*client.Device, error) {
		return s.server.add(context.Background(), client.AddRequest{File: path}, client.Files{File: image})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := d.Device(0); err != nil {
		t.Errorf("the server has no device: %v", err)
	}
}

// statusOf returns the state of a device of an image.
func statusOf(t *testing.T, image *os.File, node string) *loop.Status {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return &loop.Status{Device: node, State: live, File: image.Name(), FileDevice: number, FileInode: st.Ino}
}

// A driver that was killed between the start of a device and its Keep leaves a device that the server removes after its
// last use. The next driver keeps it.
func TestAttachKeeps(t *testing.T) {
	dir := t.TempDir()
	path, node, socket := filepath.Join(dir, "image"), filepath.Join(dir, "node"), filepath.Join(dir, "socket")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.WriteFile(node, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	image, err := loop.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = image.Close() }()
	d := controltest.NewDevices(node)
	left := statusOf(t, image, node)
	left.Autoclear = true
	d.Become(0, left)
	controltest.Serve(t, d, socket)
	s := &devices{server: newServer(socket)}
	held, err := s.attach(t.Context(), image, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if now, err := d.Device(0); err != nil || now.Autoclear {
		t.Errorf("%+v, error %v", now, err)
	}
}
