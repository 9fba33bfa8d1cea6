package losetup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fakeSystem has devices in memory.
type fakeSystem struct {
	devices  []client.Device
	err      error   // of List and NextID
	refuse   []error // of the next calls of Attach
	noKeep   []error // of the next calls of Keep
	attached []string
	detached []string
	kept     []string
	resized  []string
	users    map[string]string // the other device that has a device open
	change   func()            // called by Detach, if it is set
	later    func()            // called by the second List, if it is set
	lists    int               // calls of List
}

var _ System = (*fakeSystem)(nil)

func (s *fakeSystem) List() ([]client.Device, error) {
	if s.lists++; s.lists == 2 && s.later != nil {
		s.later()
	}
	return s.devices, s.err
}

func (s *fakeSystem) NextID() (uint32, error) { return uint32(len(s.devices)), s.err }

func (s *fakeSystem) Attach(_ context.Context, path string, cfg loop.Config) (*client.Device, error) {
	id := uint32(len(s.devices))
	text := path
	if cfg.ID != nil {
		id = *cfg.ID
		text += fmt.Sprintf(" id=%d", id)
	}
	for name, is := range map[string]bool{"ro": cfg.ReadOnly, "shared": cfg.Shared, "partscan": cfg.PartScan, "odd end": !cfg.WholeSectors} {
		if is {
			text += " " + name
		}
	}
	s.attached = append(s.attached, fmt.Sprintf("%s %d+%d %d %s %q", text, cfg.Offset, cfg.SizeLimit, cfg.SectorSize, cfg.DirectIO, cfg.Ref))
	if len(s.refuse) > 0 {
		err := s.refuse[0]
		s.refuse = s.refuse[1:]
		if err != nil {
			return nil, err
		}
	}
	return &client.Device{ID: id, Device: blockPath(id)}, nil
}

func (s *fakeSystem) Detach(_ context.Context, d *client.Device) error {
	s.detached = append(s.detached, d.Device)
	if s.change != nil {
		s.change()
	}
	if user := s.users[d.Device]; d.ReadOnly || user != "" && !slices.Contains(s.detached, user) {
		return fmt.Errorf("remove it: %w", unix.EBUSY)
	}
	return nil
}

func (s *fakeSystem) Keep(_ context.Context, d *client.Device) error {
	s.kept = append(s.kept, d.Device)
	if len(s.noKeep) > 0 {
		err := s.noKeep[0]
		s.noKeep = s.noKeep[1:]
		return err
	}
	return nil
}

func (s *fakeSystem) Resize(_ context.Context, d *client.Device) error {
	s.resized = append(s.resized, d.Device)
	return nil
}

// Hint implements System.
func (s *fakeSystem) Hint(err error) string {
	var hinted *hint.Error
	switch {
	case errors.As(err, &hinted):
		return hinted.Hint
	case errors.Is(err, unix.EBUSY):
		return "wait"
	case errors.Is(err, unix.EACCES):
		return "be root"
	}
	return ""
}

// run carries out a command line. The result has the output, the errors and the status.
func run(t *testing.T, s *fakeSystem, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	c := &Command{Name: "losetup", Version: "1", Out: &out, Err: &errOut, System: s}
	status := c.Run(t.Context(), args)
	return out.String() + errOut.String() + fmt.Sprintln("status", status)
}

// says compares the result of a command line.
func says(t *testing.T, s *fakeSystem, line, want string) {
	t.Helper()
	if got := run(t, s, strings.Fields(line)...); got != want {
		t.Errorf("losetup %s says\n%swant\n%s", line, got, want)
	}
}
