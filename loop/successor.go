package loop

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file prepares a server's process for being replaced by another program.

// CanEnd returns nil if all devices outlive the process unharmed: their running and new
// requests wait for the next server. It returns an error that wraps
// ublk.ErrNotRecoverable if a device does not have CrashReissue, or has a transfer, whose
// key ends with the process.
func (s *Server) CanEnd() error {
	var others []string
	for _, d := range s.all() {
		switch {
		case d.dev.status.OnCrash != string(CrashReissue):
			others = append(others, d.dev.Path())
		case !d.dev.status.Transfer.isNone():
			others = append(others, d.dev.Path()+" (without its key)")
		}
	}
	if len(others) == 0 {
		return nil
	}
	err := fmt.Errorf("%s: %w", strings.Join(others, ", "), ublk.ErrNotRecoverable)
	return hint.Add(err, "only devices with {on_crash=reissue}, and without a key, outlive their server unharmed; remove others first")
}

// Files returns descriptors of the files and disks of the server's devices, by id, for
// Recover in another process. With them the other process finds the files even if they
// have been renamed or removed. They are O_PATH descriptors, without a lock or claim. A
// device that is about to end may be missing.
func (s *Server) Files() map[uint32]*os.File {
	files := map[uint32]*os.File{}
	for _, d := range s.all() {
		if f, err := d.dev.reopenPath(); err == nil {
			files[d.dev.ID()] = f
		}
	}
	return files
}

// reopenPath returns another O_PATH descriptor of the device's file, like OpenPath.
func (d *Device) reopenPath() (*os.File, error) {
	if !d.closing.TryLock() {
		return nil, fmt.Errorf("%s: about to end: %w", d.Path(), unix.ENODEV)
	}
	defer d.closing.Unlock()
	if d.removed {
		return nil, fmt.Errorf("%s: %w", d.Path(), unix.ENODEV)
	}
	fd, err := unix.Open(backing.ProcPath(d.b.FD), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s again: %w", d.b.Path, err)
	}
	return os.NewFile(uintptr(fd), d.b.Path), nil
}
