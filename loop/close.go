package loop

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Close stops the device, waits until its last request is answered, and removes the
// device completely. If a device that outlives its server (OnCrash) has failed, Close
// leaves it to the next server, as if this process had been killed. Before Close, another process
// has to call WriteBack for such a device that is in use. Close may be called
// again. After an error that wraps ublk.ErrServed the device is unchanged, and the next
// call tries again.
func (d *Device) Close() error {
	d.closed.Store(true)
	if d.apart != nil {
		d.apart.endMerges()
	}
	d.background.Wait()
	d.merging.Lock() // a merge ends when it sees closed
	defer d.merging.Unlock()
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
		return errors.Join(d.dev.Leave(), d.closeTransfer(), d.storage.Close())
	}
	return d.remove()
}

// remove stops the device and removes it completely. It closes the files first: who sees that the device is
// gone may unmount the file system that they are on.
func (d *Device) remove() error {
	removeRest := d.removeRest
	lock, err := d.lockState()
	if err == nil {
		defer lock.Release()
	} else {
		removeRest = func() error { return d.leaveRest(err) }
	}
	end := d.dev.End()
	if errors.Is(end, ublk.ErrServed) {
		return end // the queues still run, and keep all that they may need
	}
	if end == nil && d.Err() == nil {
		d.storage.Unlock()
	}
	closed := errors.Join(d.closeTransfer(), d.storage.Close())
	return errors.Join(end, closed, removeRest())
}

// lockState locks the state of the device. awaitsLock reports true meanwhile.
func (d *Device) lockState() (*statefile.Lock, error) {
	d.locking.Add(1)
	defer d.locking.Add(-1)
	return statefile.Acquire(d.ID())
}

// awaitsLock reports whether the end of the device waits for another process that changes it.
func (d *Device) awaitsLock() bool { return d.locking.Load() > 0 }

// removeRest removes a device that has ended. It removes the state first, because
// afterwards another device can get the id. If another process has already removed the
// device, another device may have the id, and removeRest leaves that device alone. It also
// leaves everything if the driver does not tell which device has the id.
func (d *Device) removeRest() error {
	info, err := d.dev.Now()
	switch {
	case errors.Is(err, unix.ENODEV): // the next device with the id writes its state under the lock that the caller holds
		return errors.Join(statefile.Remove(d.ID()), d.dev.Leave())
	case err != nil:
		return d.leaveRest(err)
	case d.isOther(&info):
		return d.dev.Leave()
	}
	return errors.Join(statefile.Remove(d.ID()), d.dev.Close())
}

// leaveRest leaves a device that has ended, and returns an error that says why. Without the lock of the state, another
// device could get the id while removeRest removes the state.
func (d *Device) leaveRest(why error) error {
	why = hint.Add(fmt.Errorf("remove %s: %w", d.Path(), why), "remove it with del")
	return errors.Join(why, d.dev.Leave())
}

// closeTransfer wipes the key, after the last queue that uses it has ended.
func (d *Device) closeTransfer() error {
	if d.key != nil {
		d.key.Close()
	}
	if d.transfer == nil {
		return nil
	}
	return d.transfer.Close()
}
