package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/progress"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// serverTimeout bounds the time between the end of a device and the end of its server,
// which then only has to close its files.
const serverTimeout = 20 * time.Second

// firstPause and longestPause bound the pauses between attempts at an operation when the
// kernel does not report the awaited state.
const (
	firstPause   = time.Millisecond
	longestPause = 200 * time.Millisecond
)

// DetachOptions are the options of Detach.
type DetachOptions struct {
	// Force removes a device that is in use, and kills a server that does not end. Users
	// of the device get errors.
	Force bool
	// DiskSequence and Tag are those of the device's Status. Another device that has its id
	// now is left alone. Nil and 0 mean the device that has the id now. A device that has no
	// disk, for example because it starts, is known only by its tag.
	DiskSequence *uint64
	Tag          uint64
}

// Detach removes a device of ublk-loop, whichever process serves it: first the disk,
// whose end makes the driver end the server, then the rest. It succeeds if the device is
// gone. It returns an error that wraps ErrInUse if the device is open and Force is not
// set, and ErrForeign for another program's device.
func Detach(ctl *ublk.Control, id uint32, opts DetachOptions) error {
	defer statefile.Sweep()
	was, server, err := stopOurs(ctl, id, opts)
	if err != nil || was == nil {
		return err
	}
	if server != nil {
		defer server.Close()
	}
	if err := server.end(ctl, was, opts.Force); err != nil {
		return err
	}
	return deleteRest(ctl, *was)
}

// stopOurs removes the disk of a device of ublk-loop. It returns the device's info before
// that, and its server or nil. If the device was already gone, it returns nil for both. A
// server that ends because of the stop changes the state after this.
func stopOurs(ctl *ublk.Control, id uint32, opts DetachOptions) (*ublk.Info, *deviceServer, error) {
	lock, err := statefile.Acquire(id)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Release()
	info, err := ctl.Info(id)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil, statefile.Remove(id)
	}
	if err != nil {
		return nil, nil, err
	}
	if !isOurs(&info) {
		return nil, nil, fmt.Errorf("remove %s: %w", ublk.BlockPath(id), ErrForeign)
	}
	if isAnother(&info, opts.Tag, opts.DiskSequence) {
		return nil, nil, nil // the device itself is gone
	}
	server, err := serverOf(id)
	if err != nil {
		return nil, nil, err
	}
	if err := stop(ctl, id, server, opts.Force); err != nil && !errors.Is(err, unix.ENODEV) {
		if server != nil {
			server.Close()
		}
		return nil, nil, err
	}
	return &info, server, nil
}

// deleteRest removes what the server has left: everything if the server was killed,
// nothing if it ended in order.
func deleteRest(ctl *ublk.Control, was ublk.Info) error {
	lock, err := statefile.Acquire(was.ID)
	if err != nil {
		return err
	}
	defer lock.Release()
	return deleteSame(ctl, was)
}

// deleteSame removes a device and its state, unless another device has the id by now,
// which its tag shows. The caller holds the lock of the state.
func deleteSame(ctl *ublk.Control, was ublk.Info) error {
	now, err := ctl.Info(was.ID)
	if errors.Is(err, unix.ENODEV) || err == nil && now.Tag != was.Tag {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeState(was.ID); err != nil {
		return err
	}
	err = ctl.Delete(was.ID)
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, ublk.ErrLingers) {
		return err
	}
	return nil
}

// removeState removes the state of a device whose server was killed, and the locks of its
// files.
func removeState(id uint32) error {
	saved, err := readState(id)
	if err != nil {
		return err
	}
	known := false
	if saved != nil {
		known = true
		for _, f := range saved.files() {
			found, forgetErr := filelock.Forget(statefile.LockDir, f)
			known, err = known && found, errors.Join(err, forgetErr)
		}
	}
	if !known {
		err = errors.Join(err, filelock.Sweep(statefile.LockDir))
	}
	return errors.Join(err, statefile.Remove(id))
}

// deviceServer is another process that serves a device.
type deviceServer struct {
	*process.Process
	many bool // the server also has other devices
}

// serverOf returns the server of a device. It returns nil if there is none, or if this
// process is the server.
func serverOf(id uint32) (*deviceServer, error) {
	saved, err := readState(id)
	if err != nil || saved == nil || saved.Status.PID == os.Getpid() {
		return nil, err
	}
	p, err := process.Open(saved.Status.PID, saved.StartTime)
	if err != nil || p == nil {
		return nil, err
	}
	return &deviceServer{p, saved.ManyDevices}, nil
}

// stop removes the disk, so that the device can no longer be opened.
func stop(ctl *ublk.Control, id uint32, server *deviceServer, force bool) error {
	if !force {
		return stopUnused(ctl, id)
	}
	if server != nil {
		_ = WriteBack(ctl, id) // what cannot be written is lost, as force says
	}
	stopped, err := stopPatiently(ctl.Stop, id)
	switch {
	case !errors.Is(err, progress.ErrStalled):
		return err
	case server == nil || server.many:
		return notAnswered(id, "the disk below may hang, see dmesg")
	}
	if err := server.Kill(); err != nil {
		return fmt.Errorf("kill server of %s: %w", ublk.BlockPath(id), err)
	}
	return <-stopped
}

// stopPatiently stops a device with a function. The kernel writes the dirty pages, which takes long on a slow disk. If the device
// completes no request for serverTimeout, stopPatiently returns an error that wraps progress.ErrStalled, and stopped gets the
// driver's answer.
func stopPatiently(stop func(id uint32) error, id uint32) (stopped <-chan error, err error) {
	answer := make(chan error, 1) // its goroutine ends with the driver's answer
	go func() { answer <- stop(id) }()
	return answer, progress.Await(filepath.Base(ublk.BlockPath(id)), serverTimeout, answer)
}

// notAnswered is the error for a device whose driver waits for requests that the server does not answer.
func notAnswered(id uint32, advice string) error {
	return hint.Add(fmt.Errorf("remove %s: its requests are not answered: %w", ublk.BlockPath(id), unix.ETIMEDOUT), "%s", advice)
}

// end waits until the server of a stopped device has ended, or, if the server has other
// devices, until it has released the device.
func (s *deviceServer) end(ctl *ublk.Control, was *ublk.Info, force bool) error {
	if s == nil {
		return nil
	}
	ended, err := s.waitFor(ctl, was)
	switch {
	case err != nil || ended:
		return err
	case s.many:
		return fmt.Errorf("remove %s: the disk is gone, but its server still has the device: %w", ublk.BlockPath(was.ID), unix.ETIMEDOUT)
	case !force:
		err := fmt.Errorf("remove %s: the disk is gone, but its server has not ended: %w", ublk.BlockPath(was.ID), unix.ETIMEDOUT)
		return hint.Add(err, "{force} kills the server")
	}
	if err := s.Kill(); err != nil {
		return fmt.Errorf("kill server of %s: %w", ublk.BlockPath(was.ID), err)
	}
	_, err = s.Wait(serverTimeout)
	return err
}

// waitFor reports whether the server has ended, or has released the device, within
// serverTimeout.
func (s *deviceServer) waitFor(ctl *ublk.Control, was *ublk.Info) (bool, error) {
	if !s.many {
		return s.Wait(serverTimeout)
	}
	deadline := time.Now().Add(serverTimeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		now, err := ctl.Info(was.ID)
		switch {
		case errors.Is(err, unix.ENODEV), err == nil && now.Tag != was.Tag:
			return true, nil
		case err != nil, time.Now().After(deadline):
			return false, err
		}
		// The driver keeps a device while it is still open. The server has done its part
		// when it has removed the state.
		if saved, err := readState(was.ID); err != nil || saved == nil {
			return err == nil, err
		}
		// If the server ends, it can no longer release the device, and the caller removes
		// the rest.
		if ended, err := s.Wait(pause); ended || err != nil {
			return ended, err
		}
	}
}
