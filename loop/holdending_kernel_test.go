package loop

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A hold waits until a device that has ended is gone, because the next program would not remove it.
func TestKernelHoldBesideRemoval(t *testing.T) {
	ctl := ublktest.Kernel(t)
	files := []string{sparseFile(t, mountTmpfs(t)), sparseFile(t, mountTmpfs(t))}
	s, _ := lookingServer(t, ctl)
	ending, id := addTo(t, s, files[0], nil)
	addTo(t, s, files[1], nil)
	lock, err := statefile.Acquire(id) // for which the end of the device waits
	if err != nil {
		t.Fatal(err)
	}
	if err := ctl.Stop(id); err != nil {
		t.Fatal(err)
	}
	<-ending.dev.Done()
	if resume, err := s.Hold(100 * time.Millisecond); err == nil {
		resume()
		t.Error("the server is held before a device is removed")
	} else if !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("error %v, want ETIMEDOUT", err)
	}
	lock.Release()
	resume, err := s.Hold(30 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	resume()
	select {
	case <-ending.gone:
	default:
		t.Error("the device is not gone")
	}
}
