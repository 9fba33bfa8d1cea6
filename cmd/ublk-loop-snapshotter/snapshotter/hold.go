package snapshotter

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// hold keeps a device from going: by its lease, or where that was another
// process's, by having it open.
type hold struct {
	device loop.Status

	lease  *control.Lease // nil with a pin
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the lease has ended

	pin  *os.File // nil with a lease
	same func(*loop.Status) bool
}

func newLeaseHold(lease *control.Lease, cancel context.CancelCauseFunc) *hold {
	h := &hold{device: lease.Device, lease: lease, cancel: cancel, ended: make(chan struct{})}
	go func() { // until the lease ends, by end or by the server
		lease.Wait()
		close(h.ended)
	}()
	return h
}

// lasts reports whether the device is still kept.
func (h *hold) lasts(ctx context.Context, client *control.Client) bool {
	if h.lease == nil {
		now, err := client.Device(ctx, h.device.ID)
		return err == nil && h.same(&now)
	}
	select {
	case <-h.ended:
		return false
	default:
		return true
	}
}

func (h *hold) end() {
	if h.lease == nil {
		_ = h.pin.Close()
		return
	}
	h.lease.Close()
	h.cancel(nil)
	<-h.ended
}

// sameFile returns what tells a device of a file.
func sameFile(f *os.File) (func(*loop.Status) bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	return func(s *loop.Status) bool {
		return !s.FileIsDisk && s.FileDevice == device && s.FileInode == st.Ino
	}, nil
}
