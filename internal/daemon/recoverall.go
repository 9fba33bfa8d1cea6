package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// recoverAll takes over the devices of a server that has ended. It logs the error of a
// device and continues with the others.
func (s *many) recoverAll() {
	waiting, err := loop.Waiting(s.ctl)
	if err != nil {
		s.log.error("recover", err)
		return
	}
	done := make(chan struct{})
	for i := range waiting {
		go func() {
			defer func() { done <- struct{}{} }()
			if err := s.recover(&waiting[i]); err != nil {
				s.log.of(waiting[i].ID).error("recover", err)
			}
		}()
	}
	due, end := s.watchdog()
	defer end()
	for n := 0; n < len(waiting); {
		select {
		case <-done:
			n++
		case <-due:
			s.alive()
		}
	}
	s.last.close()
}

func (s *many) recover(device *loop.Status) error {
	file, err := s.fileOf(device)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if _, err = s.devices.Recover(device.ID, file, nil); err != nil {
		return err
	}
	if holder, held := s.last.holders[device.ID]; held {
		return s.api.Adopt(device.ID, holder)
	}
	s.devices.Release(device.ID)
	return nil
}

// fileOf returns the file of a device: the one that the last server passed on, or else
// the file at its path.
func (s *many) fileOf(device *loop.Status) (*os.File, error) {
	handed := s.last.files[device.ID]
	if handed == nil {
		return s.openPath(device.File)
	}
	fd, err := unix.FcntlInt(handed.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), device.File), nil
}

// openPath opens a file below the root directory that serve was started with.
func (s *many) openPath(path string) (*os.File, error) {
	return loop.OpenPathIn(s.files[rootFile], path)
}
