package ublk

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Recoverable reports whether a device with these features outlives its server
// (UBLK_F_USER_RECOVERY): its I/O waits until another takes over.
func (f Features) Recoverable() bool { return f.Has(uapi.UBLK_F_USER_RECOVERY) }

// freeTimeout bounds the wait until the driver has given up on the server that
// is gone. That takes a moment, but before Linux 6.16 up to the block layer's
// timeout of 30 seconds when every tag of a queue was being served: the driver
// then has no command whose end tells it (ublk_timeout in
// drivers/block/ublk_drv.c).
const freeTimeout = 45 * time.Second

// longestFreePause is the longest time between two looks whether the driver
// has given up on a server; there is no event of that.
const longestFreePause = 100 * time.Millisecond

// Recover takes over device id, whose server is gone, in this process. It
// comes as the driver has it, with its queues, features and parameters, its
// disk waiting (StateQuiesced); Start then serves it on. Until that has
// returned nil, Leave gives it up again, and Close deletes it.
//
// It returns an error that wraps ErrNotRecoverable for a device that was added
// without UBLK_F_USER_RECOVERY (Linux 6.1) or has no disk any more, EBUSY where
// there still is a server after 45 seconds, ENODEV where there is no device.
//
// Before Linux 6.16 a device of which an earlier recovery has ended before
// Start returned must not be recovered again: the driver then forgets queues
// that it does not have (ublk_queue_reinit in 6.12), and crashes.
func (c *Control) Recover(id uint32, opts RecoverOptions) (*Device, error) {
	info, err := c.Info(id)
	if err != nil {
		return nil, err
	}
	if !info.Features.Recoverable() || info.State == StateDead {
		return nil, fmt.Errorf("recover device %d: %w", id, ErrNotRecoverable)
	}
	if err := c.startRecovery(id); err != nil {
		return nil, err
	}
	d := newDevice(c, info, opts.Threads)
	d.recovers = true
	d.untrusted = opts.NoPartScan && !d.info.Features.Has(uapi.UBLK_F_NO_AUTO_PART_SCAN)
	return d, nil
}

// RecoverOptions say how a device is taken over. The rest is as it was added.
type RecoverOptions struct {
	// NoPartScan is that of Options.
	NoPartScan bool
	// Threads are those of Options.
	Threads *Threads
}

// AwaitServerEnd waits until the driver has noticed that the server of device id
// is gone, as Recover does. It returns an error that wraps EBUSY where there
// still is one after 45 seconds.
func (c *Control) AwaitServerEnd(id uint32) error {
	deadline := time.Now().Add(freeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, longestFreePause) {
		info, err := c.Info(id)
		switch {
		case err != nil || info.State != StateLive:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("wait for the end of the server of device %d: %w", id, unix.EBUSY)
		}
		if err := waitPause(pause); err != nil {
			return err
		}
	}
}

// startRecovery is UBLK_U_CMD_START_USER_RECOVERY, from the time on when the
// driver has noticed that the server is gone.
func (c *Control) startRecovery(id uint32) error {
	deadline := time.Now().Add(freeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, longestFreePause) {
		err := c.device("start recovery of", id,
			Command{Op: uapi.UBLK_U_CMD_START_USER_RECOVERY, Timeout: commandTimeout})
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := waitPause(pause); err != nil {
			return err
		}
	}
}

// waitPause lets some time pass where there is no event to wait for.
func waitPause(d time.Duration) error {
	_, err := unix.Poll(nil, max(1, int(d.Milliseconds())))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// endRecovery is UBLK_U_CMD_END_USER_RECOVERY: the queues have fetched their
// tags, I/O goes on.
func (c *Control) endRecovery(id uint32) error {
	return c.device("end recovery of", id,
		Command{Op: uapi.UBLK_U_CMD_END_USER_RECOVERY, Data: uint64(unix.Getpid()), Timeout: commandTimeout})
}

// Leave ends the service of a device as the end of this process would: at
// once, whatever it was doing. The driver then does what the device's features
// say: with UBLK_F_USER_RECOVERY the disk stays and its I/O waits for a server
// (Control.Recover), else the disk goes and the device is dead. It may be
// called again, and after Close does nothing.
//
// A device on Threads that has started to be served is left by nothing but the
// end of this process: the error then wraps ErrServed.
func (d *Device) Leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	if d.started && !d.threads.alone {
		select {
		case <-d.done:
		default:
			return fmt.Errorf("leave device %d: %w", d.info.ID, ErrServed)
		}
	}
	d.closed = true
	if d.started {
		d.kill()
		<-d.done
	}
	return closeFD(&d.charFD)
}
