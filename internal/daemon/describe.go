package daemon

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// describe says what a failed attempt was at.
func (s *single) describe(err error) error {
	if s.task.Recover != nil {
		return report.Name(err, "recover", ublk.BlockPath(*s.task.Recover))
	}
	return describeAdd(err, s.task.Name, &s.config)
}

// describeAdd says what a failed attempt to make a device of a file was at.
func describeAdd(err error, file string, cfg *loop.Config) error {
	err = report.Name(err, "attach", file)
	switch {
	case cfg.ID != nil && errors.Is(err, unix.EEXIST):
		err = report.Name(err, "make", ublk.BlockPath(*cfg.ID))
		return &hint.Error{Err: err, Hint: "that one is taken; without {id} it is the first free one"}
	case cfg.ZeroCopy == loop.SwitchOn && errors.Is(err, ublk.ErrNotSupported):
		return &hint.Error{Err: err, Hint: "leave {zero_copy} out; ublk-loop features shows what the kernel has"}
	}
	return err
}
