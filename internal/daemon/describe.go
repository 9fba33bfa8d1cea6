package daemon

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// describe adds the failed operation and its object to an error.
func (s *single) describe(err error) error {
	if s.task.Recover != nil {
		return report.Name(err, "recover", ublk.BlockPath(*s.task.Recover))
	}
	return describeAdd(err, rawname.Name(s.task.Name, s.task.NameBytes), &s.config)
}

// describeAdd does the same for the error of making a device from a file.
func describeAdd(err error, file string, cfg *loop.Config) error {
	err = report.Name(err, "attach", file)
	switch {
	case cfg.ID != nil && errors.Is(err, unix.EEXIST):
		err = report.Name(err, "make", ublk.BlockPath(*cfg.ID))
		return &hint.Error{Err: err, Hint: "this number is taken; without {id} the device gets the first free number"}
	case cfg.ZeroCopy == loop.SwitchOn && errors.Is(err, ublk.ErrNotSupported):
		return &hint.Error{Err: err, Hint: "omit {zero_copy}; ublk-loop features shows what the kernel offers"}
	}
	return err
}
