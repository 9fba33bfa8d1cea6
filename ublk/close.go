package ublk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Stop removes the disk. Dirty pages are written first, so the queues serve on
// until it returns; then they end, and Done closes.
func (d *Device) Stop() error {
	return d.ctl.Stop(d.info.ID)
}

// Close stops the device if it is live, waits until its queues have ended, and
// deletes it: nothing of it is left but, until they close it, what those who
// have the disk open hold on to. It may be called again.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	err := d.end()
	if errors.Is(err, ErrServed) {
		return err
	}
	d.closed = true
	return errors.Join(err, closeFD(&d.charFD), ignoreGone(d.ctl.Delete(d.info.ID)))
}

// End stops the device if it is live and waits until its queues have ended. Its
// id stays its own until Close, which does this too. The error of both wraps
// ErrServed where the driver does not stop a device on Threads: it is as it was
// then.
func (d *Device) End() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return d.end()
}

func (d *Device) end() error {
	if !d.started {
		return nil
	}
	var err error
	select {
	case <-d.done: // a device whose queues have ended has nobody to flush to
	default:
		if err = ignoreGone(d.Stop()); err == nil {
			break
		}
		if !d.threads.alone {
			return fmt.Errorf("%w: %w", ErrServed, err)
		}
		d.kill() // nothing else would end the queues
	}
	<-d.done
	return err
}

// ignoreGone drops the errors that say that a device is gone, as was to be
// reached.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, ErrLingers) {
		return nil
	}
	return err
}

func closeFD(fd *int) error {
	if *fd < 0 {
		return nil
	}
	err := unix.Close(*fd)
	*fd = -1
	return err
}
