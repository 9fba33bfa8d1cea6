package snapshotter

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// hold keeps a device from going: by its lease, or where that was another
// process's, by having it open. Its fields are the snapshot's request's.
type hold struct {
	device loop.Status
	same   func(*loop.Status) bool
	// pin is the device, open: the driver gives no number away whose disk is open,
	// so what containerd mounts by the number is this device or nothing, though
	// the lease has ended. It is nil while a removal is tried.
	pin *os.File

	lease  *control.Lease // nil for another process's
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the lease has ended
}

func newLeaseHold(lease *control.Lease, cancel context.CancelCauseFunc, same func(*loop.Status) bool) *hold {
	h := &hold{device: lease.Device, same: same, lease: lease, cancel: cancel, ended: make(chan struct{})}
	go func() { // until the lease ends, by end or by the server
		lease.Wait()
		close(h.ended)
	}()
	return h
}

// keepOpen opens the device, and reports whether its number was still its own
// then: so it stays.
func (h *hold) keepOpen(ctx context.Context, client *control.Client) bool {
	f, err := os.Open(h.device.Device)
	if err != nil {
		return false // it is going
	}
	h.pin = f
	own, err := h.hasNumber(ctx, client)
	return err == nil && own
}

// closePin lets the device be removed.
func (h *hold) closePin() {
	_ = h.pin.Close() // nil is no matter
	h.pin = nil
}

// lasts reports whether the device is still kept. The lease alone does not say:
// it lasts when somebody has removed the device. Where the server does not answer
// it does.
func (h *hold) lasts(ctx context.Context, client *control.Client) bool {
	if h.lease != nil {
		select {
		case <-h.ended:
			return false
		default:
		}
	}
	own, err := h.hasNumber(ctx, client)
	return own || err != nil && h.lease != nil
}

// hasNumber reports whether the server's device of the number is this one, or one
// just the same.
func (h *hold) hasNumber(ctx context.Context, client *control.Client) (bool, error) {
	now, err := client.Device(ctx, h.device.ID)
	if hasStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil && now.ReadOnly == h.device.ReadOnly && h.same(&now), err
}

func (h *hold) end() {
	h.closePin()
	if h.lease == nil {
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
