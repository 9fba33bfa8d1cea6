package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// serverTimeout bounds how long a server may take to end once its device has:
// it has nothing left to do but to close what it has open.
const serverTimeout = 20 * time.Second

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
		defer server.close()
	}
	if err := endServer(server, id, opts.Force); err != nil {
		return err
	}
	return deleteRest(ctl, *was)
}

// stopOurs removes the disk of one of our devices, and returns what the device
// was and its server, nil for none: of that, or of a device that is gone. A
// server that ends by it changes the state in its turn.
func stopOurs(ctl *ublk.Control, id uint32, force bool) (*ublk.Info, *process, error) {
	lock, err := lockState(id)
	if err != nil {
		return nil, nil, err
	}
	defer lock.release()
	info, err := ctl.Info(id)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil, removeState(id)
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
	if err := stop(ctl, id, force); err != nil && !errors.Is(err, unix.ENODEV) {
		if server != nil {
			server.close()
		}
		return nil, nil, err
	}
	return &info, server, nil
}

// deleteRest removes what a server has not: all of it where the server was
// killed, nothing where it ended in order. The id may be another device's by
// then, which has another tag.
func deleteRest(ctl *ublk.Control, was ublk.Info) error {
	lock, err := lockState(was.ID)
	if err != nil {
		return err
	}
	defer lock.release()
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

// serverOf returns the process that serves a device, nil when there is none
// or when it is this one.
func serverOf(id uint32) (*process, error) {
	saved, err := readState(id)
	if err != nil || saved == nil || saved.Status.PID == os.Getpid() {
		return nil, err
	}
	return openProcess(saved.Status.PID, saved.StartTime)
}

// stop removes the disk: after it nobody can open it any more.
func stop(ctl *ublk.Control, id uint32, force bool) error {
	if force {
		return ctl.Stop(id)
	}
	return stopUnused(ctl, id)
}

// endServer waits for the end of a server whose device has been stopped.
func endServer(server *process, id uint32, force bool) error {
	if server == nil {
		return nil
	}
	ended, err := server.wait(serverTimeout)
	if err != nil || ended {
		return err
	}
	if !force {
		return fmt.Errorf("remove %s: wait for its server: %w", ublk.BlockPath(id), unix.ETIMEDOUT)
	}
	if err := server.kill(); err != nil {
		return fmt.Errorf("kill server of %s: %w", ublk.BlockPath(id), err)
	}
	_, err = server.wait(serverTimeout)
	return err
}
