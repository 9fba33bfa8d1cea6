package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/udev"
)

// Held is a device that this process keeps open. The driver does not reuse the number of
// an open disk. A mount by the number therefore gets this device or fails, even when the
// lease has ended. A Held is not safe for concurrent use.
//
//	Attach or Open -> Release -> Reopen, Remove or Close
type Held struct {
	Device Device
	client *Client
	lease  *Lease // nil for a device that another process has made
	disk   *os.File
}

// Attach asks for a device with a lease, as Add does, and opens it when its node exists.
// It returns an error that wraps ErrLost if the device is gone by then.
func (c *Client) Attach(ctx context.Context, req AddRequest, files Files) (*Held, error) {
	lease, err := c.Add(ctx, req, files)
	if err != nil {
		return nil, err
	}
	h := &Held{Device: lease.Device, client: c, lease: lease}
	if err := h.Reopen(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Open opens an existing device. It returns an error that wraps ErrLost if the device is
// gone.
func (c *Client) Open(ctx context.Context, device Device) (*Held, error) {
	h := &Held{Device: device, client: c}
	if err := h.Reopen(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Disk returns the open device, nil after Release.
func (h *Held) Disk() *os.File { return h.disk }

// IsLeased reports whether the device is leased by this process.
func (h *Held) IsLeased() bool { return h.lease != nil }

// Release closes the device, so that it can be removed.
func (h *Held) Release() {
	_ = h.disk.Close() // Close of a nil file only returns an error
	h.disk = nil
}

// Reopen opens the device again after Release. If the device has gone, it returns an error that
// wraps ErrLost, and has nothing open.
func (h *Held) Reopen(ctx context.Context) error {
	disk, err := h.open(ctx)
	if err == nil {
		h.disk = disk
		err = h.checkDisk(ctx)
	}
	if err == nil {
		return nil
	}
	h.Release()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrLost):
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// open opens the device. It waits for a missing node only while the server has the
// device.
func (h *Held) open(ctx context.Context) (*os.File, error) {
	disk, err := os.Open(h.Device.Device)
	if !errors.Is(err, unix.ENOENT) {
		return disk, err
	}
	if err := h.checkNumber(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := h.whileServed(ctx)
	defer cancel()
	return udev.Open(ctx, h.Device.Device, "") // checkDisk follows
}

// lookPause is the time between two looks whether the server still has a device.
const lookPause = 100 * time.Millisecond

// whileServed returns a context that also ends when the lease does, or when the server removes the
// device, which does not end the lease.
func (h *Held) whileServed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := h.whileLeased(ctx)
	served, lose := context.WithCancelCause(ctx)
	go func() { // until the returned function is called
		for {
			select {
			case <-served.Done():
				return
			case <-time.After(lookPause):
			}
			if err := h.checkNumber(served); errors.Is(err, ErrLost) { // a server that does not answer may still have it
				lose(err)
			}
		}
	}()
	return served, cancel
}

// whileLeased returns a context that also ends when the lease does.
func (h *Held) whileLeased(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if h.lease == nil {
		return ctx, func() { cancel(nil) }
	}
	go func() { // until the returned function is called
		select {
		case <-h.lease.ended:
			cancel(ErrLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// checkNumber returns an error that wraps ErrLost unless the server's device with this
// number is this one. The lease alone is no proof, because the removal of a device does
// not end its lease.
func (h *Held) checkNumber(ctx context.Context) error {
	now, err := h.client.Device(ctx, h.Device.ID)
	switch {
	case HasStatus(err, http.StatusNotFound):
		return ErrLost
	case err != nil:
		return err
	case !now.isOrLike(&h.Device):
		return ErrLost
	}
	return nil
}

// checkDisk returns an error that wraps ErrLost if the device's name led to another disk. No
// two disks have the same sequence number, so that the server is asked only without one.
func (h *Held) checkDisk(ctx context.Context) error {
	if h.Device.DiskSequence == 0 {
		return h.checkNumber(ctx)
	}
	n, err := identity.Sequence(h.disk)
	if err == nil && n != h.Device.DiskSequence {
		err = ErrLost
	}
	return err
}

// IsLost reports whether the device has gone. While the server of a leased device does
// not answer, the device counts as there.
func (h *Held) IsLost(ctx context.Context) bool {
	if h.LeaseHasEnded() {
		return true
	}
	err := h.checkNumber(ctx)
	return errors.Is(err, ErrLost) || err != nil && h.lease == nil
}

// LeaseHasEnded reports whether the device had a lease that has ended.
func (h *Held) LeaseHasEnded() bool {
	if h.lease == nil {
		return false
	}
	select {
	case <-h.lease.ended:
		return true
	default:
		return false
	}
}

// Remove releases and removes a leased device, and returns when the device is completely
// gone. If the device is in use, Remove returns an error with HTTP status 409, and the
// device stays leased. Remove leaves a device whose lease has ended to the server, because
// another device may have its number.
func (h *Held) Remove(ctx context.Context) error {
	h.Release()
	if h.lease == nil || h.LeaseHasEnded() {
		return nil
	}
	return h.client.Remove(ctx, &h.Device, false)
}

// Close releases the device and ends its lease. The server then removes the device when
// it is no longer in use.
func (h *Held) Close() {
	h.Release()
	if h.lease != nil {
		h.lease.Close()
	}
}

// IsOf reports whether the device serves this file or disk.
func (d *Device) IsOf(file *os.File) (bool, error) {
	f, err := identity.Of(file)
	return err == nil && d.identity().HasNumbersOf(f), err
}

// Uses reports whether the device serves this file or disk, or has it below its tables.
func (d *Device) Uses(file *os.File) (bool, error) {
	f, err := identity.Of(file)
	if err != nil {
		return false, err
	}
	for i := range d.Files {
		if d.Files[i].identity().HasNumbersOf(f) {
			return true, nil
		}
	}
	return len(d.Files) == 0 && d.identity().HasNumbersOf(f), nil
}
