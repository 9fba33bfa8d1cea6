package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Abandon implements Pending: it is what an interrupted add ends with. The server ends by
// itself once its end of control is closed, and removes its device. What a server leaves
// that was killed is removed here.
func (s *background) Abandon() error {
	_ = s.control.Close()
	if s.recovers {
		return s.process.Release()
	}
	var info unix.Siginfo
	if err := eintr.Repeat(func() error {
		return unix.Waitid(unix.P_PID, s.process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	}); err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	var err error
	if info.Code != cldExited {
		err = errors.Join(removeRemains(s.process.Pid), loop.SweepLocks())
	}
	_, waitErr := s.process.Wait()
	return errors.Join(err, waitErr)
}

// cldExited is the si_code of a process that exited (sigaction(2)).
const cldExited = 1

// removeRemains removes the device of a killed server. The caller has not yet waited for
// the process, so that its pid still belongs to it.
func removeRemains(pid int) error {
	ctl, err := ublk.OpenControl()
	if err != nil {
		return err
	}
	defer func() { _ = ctl.Close() }()
	devices, err := loop.List(ctl)
	if err != nil {
		return err
	}
	for i := range devices {
		if devices[i].PID == pid {
			return loop.Detach(ctl, devices[i].ID, loop.DetachOptions{Force: true})
		}
	}
	return nil
}
