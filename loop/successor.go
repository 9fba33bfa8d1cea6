package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// This file prepares a server's process for being replaced by another program.

// CanEnd returns nil if all devices outlive the process unharmed: their running and new
// requests wait for the next server. It returns an error that wraps
// ublk.ErrNotRecoverable if a device does not have CrashReissue.
func (s *Server) CanEnd() error {
	var others []string
	for _, d := range s.all() {
		if d.dev.status.OnCrash != string(CrashReissue) {
			others = append(others, d.dev.Path())
		}
	}
	if len(others) == 0 {
		return nil
	}
	err := fmt.Errorf("%s: %w", strings.Join(others, ", "), ublk.ErrNotRecoverable)
	return hint.Add(err, "only devices with {on_crash=reissue} outlive their server unharmed; remove others first")
}

// PassKeys returns copies of the keys of the server's devices, by id. The caller closes them.
// A device that is about to end may be missing.
func (s *Server) PassKeys() (map[uint32]*transfer.Secret, error) {
	all := map[uint32]*transfer.Secret{}
	for _, d := range s.all() {
		key, err := d.dev.passKey()
		if err != nil {
			for _, key := range all {
				key.Close()
			}
			return nil, fmt.Errorf("%s: %w", d.dev.Path(), err)
		}
		if key != nil {
			all[d.dev.ID()] = key
		}
	}
	return all, nil
}

// passKey returns a copy of the key. It returns nil if the device has none, or is about to end.
func (d *Device) passKey() (*transfer.Secret, error) {
	if d.key == nil || !d.closing.TryLock() {
		return nil, nil
	}
	defer d.closing.Unlock()
	if d.removed {
		return nil, nil
	}
	return d.key.Clone()
}

// Pass returns the open files of the server's devices, by id, for Recover and RecoverTable in
// the program that replaces this one. The server still owns them. A device that is about to
// end may be missing.
func (s *Server) Pass() map[uint32][]Passed {
	all := map[uint32][]Passed{}
	for _, d := range s.all() {
		if passed, found := d.dev.pass(); found {
			all[d.dev.ID()] = passed
		}
	}
	return all
}

// pass returns the open files of the device, unless the device is about to end.
func (d *Device) pass() ([]Passed, bool) {
	if !d.closing.TryLock() {
		return nil, false
	}
	defer d.closing.Unlock()
	if d.stack != nil {
		return d.stack.Pass(), !d.removed
	}
	return []Passed{d.b.Pass()}, !d.removed
}

// apart returns the process for a device of some files, or nil if this process has to serve its requests.
// A process ends only when its files are closed, and a file system of another program or machine may
// never answer that. An upgrade, which passes on the files of this process without closing them,
// would then wait, with all devices.
func (s *Server) apart(files ...*os.File) Apart {
	process := s.opts.Apart()
	if process != nil && slices.ContainsFunc(files, ClosesRemotely) {
		process.Unused()
		return nil
	}
	return process
}

// ClosesRemotely reports whether another program or machine takes part in closing a file, and may keep the
// process waiting.
func ClosesRemotely(file *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &st); err != nil {
		return false // the caller cannot open it
	}
	switch uint32(st.Type) {
	case unix.FUSE_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_FS_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return true
	}
	return false
}

// checkCloses returns an error that wraps errors.ErrUnsupported if the process of several devices must not get
// one of the files, for the same reason.
func (d *Device) checkCloses(files ...*os.File) error {
	if d.apart == nil || !d.many {
		return nil
	}
	at := slices.IndexFunc(files, ClosesRemotely)
	if at < 0 {
		return nil
	}
	err := fmt.Errorf("%s: its file system may not answer a close, and the upgrade of a server waits for that, with all devices: %w", files[at].Name(), errors.ErrUnsupported)
	return hint.Add(err, "use a file on a local file system")
}
