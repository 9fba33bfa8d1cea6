package loop

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// mergePatience is how long a merge waits for the requests in flight.
const mergePatience = 30 * time.Second

// Merge moves the changes of the device's store into its base while the device is used. It
// returns the number of chunks that were copied. In the end the store is empty, and the device
// goes on with it. Merge ends early, with consistent files, if the context does, or if the device
// is closed. If the process ends, another merge continues.
//
// It returns an error that wraps EINVAL for a device that is no snapshot, errors.ErrUnsupported if
// the base is a store or the store is transient, EBUSY if another device has the base or waits for a server with it, and EPERM
// if another store needs it, or if it is checked against a hash tree.
func (d *Device) Merge(ctx context.Context) (chunks uint64, err error) {
	if !d.merging.TryLock() {
		return 0, fmt.Errorf("merge %s: it is being merged or forked: %w", d.Path(), unix.EBUSY)
	}
	defer d.merging.Unlock()
	if chunks, err = d.merge(ctx); err != nil {
		return chunks, fmt.Errorf("merge %s: %w", d.Path(), err)
	}
	return chunks, nil
}

// HasStore reports whether the device writes to a store of copy-on-write.
func (d *Device) HasStore() bool { return d.stack != nil && d.stack.HasStore() }

func (d *Device) merge(ctx context.Context) (chunks uint64, err error) {
	if d.closed.Load() {
		return 0, unix.ENODEV
	}
	if d.stack == nil {
		return 0, hint.Add(fmt.Errorf("the device is no snapshot: %w", unix.EINVAL), "only a device with a store has changes: ublk-loop add --cow")
	}
	m, err := d.stack.NewMerge()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := checkWaiting(d.ctl, servesNone, writtenPlaces(m.Base())); err != nil {
		return 0, err
	}
	if d.apart != nil {
		return d.apart.merge(ctx, d.dev, m)
	}
	err = m.Do(ctx, func() (func(), error) {
		if d.closed.Load() || d.isDone() {
			return nil, unix.ENODEV
		}
		return d.hold(mergePatience)
	})
	return m.Chunks, err
}

// Merge is Device.Merge for one of the server's devices. It returns an error that wraps ENODEV if
// the server does not have the device.
func (s *Server) Merge(ctx context.Context, id uint32, sequence *uint64) (chunks uint64, err error) {
	d, err := s.find(id, sequence)
	if err != nil {
		return 0, fmt.Errorf("merge %s: %w", ublk.BlockPath(id), err)
	}
	return d.dev.Merge(ctx)
}
