package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// serverTimeout bounds how long a server may take to end once its device has:
// it has nothing left to do but to close what it has open.
const serverTimeout = 20 * time.Second

// firstPause and longestPause bound the time between two attempts at something that the
// kernel tells nobody of.
const (
	firstPause   = time.Millisecond
	longestPause = 200 * time.Millisecond
)

// DetachOptions say how to remove a device.
type DetachOptions struct {
	// Force removes a device that is in use, and kills a server that does
	// not end. Users of the device get errors.
	Force bool
}

// Detach removes one of our devices, whoever serves it: the disk, then by the
// driver's word the server, then the rest. A device that is gone is no error.
// It returns an error that wraps ErrInUse for a device that somebody has open,
// unless forced, and ErrForeign for another program's.
func Detach(ctl *ublk.Control, id uint32, opts DetachOptions) error {
	was, server, err := stopOurs(ctl, id, opts.Force)
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

// stopOurs removes the disk of one of our devices, and returns what the device
// was and its server, nil for none: of that, or of a device that is gone. A
// server that ends by it changes the state in its turn.
func stopOurs(ctl *ublk.Control, id uint32, force bool) (*ublk.Info, *deviceServer, error) {
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
	server, err := serverOf(id)
	if err != nil {
		return nil, nil, err
	}
	if err := stop(ctl, id, server, force); err != nil && !errors.Is(err, unix.ENODEV) {
		if server != nil {
			server.Close()
		}
		return nil, nil, err
	}
	return &info, server, nil
}

// deleteRest removes what a server has not: all of it where the server was
// killed, nothing where it ended in order.
func deleteRest(ctl *ublk.Control, was ublk.Info) error {
	lock, err := statefile.Acquire(was.ID)
	if err != nil {
		return err
	}
	defer lock.Release()
	return deleteSame(ctl, was)
}

// deleteSame removes a device and its state, unless the id is that of another
// device by then, which has another tag. The caller has the lock of the state.
func deleteSame(ctl *ublk.Control, was ublk.Info) error {
	now, err := ctl.Info(was.ID)
	if errors.Is(err, unix.ENODEV) || err == nil && now.Tag != was.Tag {
		return nil
	}
	if err != nil {
		return err
	}
	if err := statefile.Remove(was.ID); err != nil {
		return err
	}
	err = ctl.Delete(was.ID)
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, ublk.ErrLingers) {
		return err
	}
	return nil
}

// deviceServer is the process that serves a device, another than this one.
type deviceServer struct {
	*process.Process
	many bool // it has other devices, too
}

// serverOf returns the server of a device, nil when there is none or when it is
// this process.
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

// stop removes the disk: after it nobody can open it any more.
func stop(ctl *ublk.Control, id uint32, server *deviceServer, force bool) error {
	if !force {
		return stopUnused(ctl, id)
	}
	stopped := make(chan error, 1) // of a goroutine that ends with the driver's answer
	go func() { stopped <- ctl.Stop(id) }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(serverTimeout):
	}
	// The driver waits for requests that the server does not answer.
	if server == nil || server.many {
		err := fmt.Errorf("remove %s: its requests have no answer: %w", ublk.BlockPath(id), unix.ETIMEDOUT)
		return hint.Add(err, "the disk below may hang, see dmesg")
	}
	if err := server.Kill(); err != nil {
		return fmt.Errorf("kill server of %s: %w", ublk.BlockPath(id), err)
	}
	return <-stopped
}

// end waits for the end of the server of a device that has been stopped, or of
// what it has of the device.
func (s *deviceServer) end(ctl *ublk.Control, was *ublk.Info, force bool) error {
	if s == nil {
		return nil
	}
	ended, err := s.waitFor(ctl, was)
	switch {
	case err != nil || ended:
		return err
	case !force || s.many:
		return fmt.Errorf("remove %s: wait for its server: %w", ublk.BlockPath(was.ID), unix.ETIMEDOUT)
	}
	if err := s.Kill(); err != nil {
		return fmt.Errorf("kill server of %s: %w", ublk.BlockPath(was.ID), err)
	}
	_, err = s.Wait(serverTimeout)
	return err
}

// waitFor reports whether the server has ended with the device, within the time
// that it has for that.
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
		// The driver keeps a device that somebody has open still. The server
		// has done its part once it has removed the state.
		if saved, err := readState(was.ID); err != nil || saved == nil {
			return err == nil, err
		}
		// Its end would be the device's, too: what is left is removed then.
		if ended, err := s.Wait(pause); ended || err != nil {
			return ended, err
		}
	}
}
