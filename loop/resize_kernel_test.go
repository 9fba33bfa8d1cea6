package loop

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A server of many devices resizes its own devices, and no device that has got the number of
// another.
func TestKernelServerResizes(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	s := NewServer(ctl, ServerOptions{})
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	status, err := s.Add(openPath(t, sparseFile(t, mountTmpfs(t))), Config{SizeLimit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	other := status.DiskSequence + 1
	for what, err := range map[string]error{
		"another device with the number": s.Resize(status.ID, ResizeOptions{Size: 2 << 20, DiskSequence: &other}),
		"a number without a device":      s.Resize(status.ID+1, ResizeOptions{Size: 2 << 20}),
	} {
		if !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: error %v, want ENODEV", what, err)
		}
	}
	if s := s.Devices()[0]; s.Size != 1<<20 {
		t.Errorf("the device has %d bytes", s.Size)
	}
	err = s.Resize(status.ID, ResizeOptions{Size: 2 << 20, DiskSequence: &status.DiskSequence})
	if errors.Is(err, ublk.ErrNotSupported) {
		ublktest.Lacks(t, ublktest.UpdateSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s := s.Devices()[0]; s.Size != 2<<20 {
		t.Errorf("the device has %d bytes", s.Size)
	}
}

// A server sees the new size when another process resizes its device.
func TestKernelResizeIsSeenByTheServer(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	path := sparseFile(t, mountTmpfs(t))
	dev, err := Attach(ctl, openPath(t, path), Config{SizeLimit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	other, err := ublk.OpenControl()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = Resize(other, dev.ID(), ResizeOptions{Size: 2 << 20})
	if errors.Is(err, ublk.ErrNotSupported) {
		ublktest.Lacks(t, ublktest.UpdateSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s := dev.Status(); s.Size != 2<<20 || s.PID != os.Getpid() || s.SizeLimit != 1<<20 {
		t.Errorf("the server says %+v", s)
	}
}

// The server of a device of tables sees the table as it is after a resize.
func TestKernelResizeOfTableIsSeenByTheServer(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	dev := attachTable(t, ctl, fmt.Sprintf("0 8 zero\n8 8 linear %s 8", path), Config{})
	err := Resize(ctl, dev.ID(), ResizeOptions{Size: 1 << 20})
	if errors.Is(err, ublk.ErrNotSupported) {
		ublktest.Lacks(t, ublktest.UpdateSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, want := dev.Status(), fmt.Sprintf("0 8 zero \n8 2040 linear %s 8\n", path); s.Size != 1<<20 || s.Table != want {
		t.Errorf("the server says %d bytes, table %q, want %q", s.Size, s.Table, want)
	}
}
