package loop

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// When a server adds a device, it asks the driver for none of its other devices.
func TestKernelAddAsksNotForOwn(t *testing.T) {
	s := NewServer(ublktest.Kernel(t), ServerOptions{})
	status, err := s.Add(openPath(t, sparseFile(t, mountTmpfs(t))), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	asks := func() int {
		t.Helper()
		fake := &ublktest.Fake{} // knows no device
		other := openPath(t, sparseFile(t, mountTmpfs(t)))
		b, err := openNew(ublk.NewControl(fake), other, &Config{}, s.threads)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		return len(fake.Commands())
	}
	if n := asks(); n != 0 {
		t.Errorf("%d commands beside a device of its own", n)
	}
	d := s.devices[status.ID]
	s.threads.has = servesNone
	if n := asks(); n != 1 {
		t.Errorf("%d commands beside a device of another server, want 1", n)
	}
	if err := s.Remove(status.ID, DetachOptions{}); err != nil {
		t.Error(err)
	}
	s.devices[status.ID] = d // which has ended
	if s.serves(status.ID) {
		t.Error("a device that has ended is served")
	}
	delete(s.devices, status.ID)
}
