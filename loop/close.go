package loop

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Close stops the device, waits until its last request is answered, and
// removes all of it. A device that outlives its server (OnCrash) and has failed
// is left to another, as if this process had been killed. It may be called
// again, which after an error that wraps ublk.ErrServed is another attempt: the
// device is as it was then.
func (d *Device) Close() error {
	d.closed.Store(true)
	d.background.Wait()
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.removed {
		return nil
	}
	err := d.close()
	d.removed = !errors.Is(err, ublk.ErrServed)
	return err
}

func (d *Device) close() error {
	if d.Err() != nil && d.isRecoverable() {
		return errors.Join(d.dev.Leave(), d.closeTransfer(), d.b.Close())
	}
	return d.remove()
}

// remove stops the device and removes all of it.
func (d *Device) remove() error {
	lock, err := statefile.Acquire(d.ID())
	if err == nil {
		defer lock.Release()
	}
	end := d.dev.End()
	if errors.Is(end, ublk.ErrServed) {
		return end // with all that its queues may need
	}
	if end == nil && d.Err() == nil {
		d.b.Unlock()
	}
	return errors.Join(err, end, d.removeRest(), d.closeTransfer(), d.b.Close())
}

// removeRest removes a device that has ended, and its state before that: then
// the id can be another's. It may be so already, where somebody else has removed
// the device, and is left alone then.
func (d *Device) removeRest() error {
	info, err := d.dev.Now()
	switch {
	case err == nil && d.isOther(&info):
		return d.dev.Leave()
	case errors.Is(err, unix.ENODEV): // who gets the id next writes a state with the lock that we have
		return errors.Join(statefile.Remove(d.ID()), d.dev.Leave())
	}
	return errors.Join(statefile.Remove(d.ID()), d.dev.Close())
}

// closeTransfer wipes the key, once no queue is there to use it.
func (d *Device) closeTransfer() error {
	if d.transfer == nil {
		return nil
	}
	return d.transfer.Close()
}
