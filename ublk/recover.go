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
// (UBLK_F_USER_RECOVERY). Its I/O then waits for another server.
func (f Features) Recoverable() bool { return f.Has(uapi.UBLK_F_USER_RECOVERY) }

// freeTimeout bounds the wait until the driver has noticed that a server has ended. That
// takes a moment. Before Linux 6.16 it can take the block layer's timeout of 30 seconds: if
// the server had a request of every tag of a queue, the driver has no command whose end it
// could notice (ublk_timeout in drivers/block/ublk_drv.c).
const freeTimeout = 45 * time.Second

// longestFreePause is the longest time between two checks whether the driver has noticed the
// end of a server. There is no event for that.
const longestFreePause = 100 * time.Millisecond

// Recover takes over device id, whose server has ended. The device has the queues, features
// and parameters that it had, and its disk waits (StateQuiesced). Start makes its I/O go on.
// Until Start returns nil, Leave gives the device up again, and Close deletes it.
//
// Recover returns an error that wraps ErrNotRecoverable if the device was added without
// UBLK_F_USER_RECOVERY (Linux 6.1) or has lost its disk, EBUSY if it still has a server after
// 45 seconds, ENODEV if there is no such device, and EINVAL for options that Add refuses.
//
// Before Linux 6.16, do not recover a device again if an earlier recovery ended before Start
// returned: the driver then resets queues that it does not have (ublk_queue_reinit in 6.12),
// and crashes.
func (c *Control) Recover(id uint32, opts RecoverOptions) (*Device, error) {
	if err := checkCounts(opts.Files, opts.ExtraParts); err != nil {
		return nil, fmt.Errorf("recover device %d: %w", id, err)
	}
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
	d := newDevice(c, info, opts)
	d.recovers = true
	return d, nil
}

// RecoverOptions say how a device is taken over. Everything else is as it was added.
type RecoverOptions struct {
	// NoPartScan is Options.NoPartScan.
	NoPartScan bool
	// Threads are Options.Threads.
	Threads *Threads
	// Files and ExtraParts are Options.Files and Options.ExtraParts.
	Files, ExtraParts int
}

// AwaitServerEnd waits until the driver has noticed that the server of device id has ended,
// as Recover does. It returns an error that wraps EBUSY if the device still has a server
// after 45 seconds.
func (c *Control) AwaitServerEnd(id uint32) error {
	return whileBusy(func() error {
		info, err := c.Info(id)
		if err == nil && info.State == StateLive {
			return fmt.Errorf("wait for the end of the server of device %d: %w", id, unix.EBUSY)
		}
		return err
	})
}

// startRecovery is UBLK_U_CMD_START_USER_RECOVERY. It waits until the driver has noticed that
// the server has ended.
func (c *Control) startRecovery(id uint32) error {
	return whileBusy(func() error {
		return c.device("start recovery of", id,
			Command{Op: uapi.UBLK_U_CMD_START_USER_RECOVERY, Timeout: commandTimeout})
	})
}

// whileBusy calls f until its error does not wrap EBUSY, which says that the driver has not noticed the
// end of a server. It returns the last error, after freeTimeout too.
func whileBusy(f func() error) error {
	deadline := time.Now().Add(freeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, longestFreePause) {
		err := f()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := waitPause(pause); err != nil {
			return err
		}
	}
}

// waitPause waits for a time, between checks of a state that has no event.
func waitPause(d time.Duration) error {
	_, err := unix.Poll(nil, max(1, int(d.Milliseconds())))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// endRecovery is UBLK_U_CMD_END_USER_RECOVERY, which makes the I/O go on after the queues
// have fetched their tags.
func (c *Control) endRecovery(id uint32) error {
	return c.device("end recovery of", id,
		Command{Op: uapi.UBLK_U_CMD_END_USER_RECOVERY, Data: uint64(unix.Getpid()), Timeout: commandTimeout})
}
