package loop

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
)

// Part is a readable part of a file or disk.
type Part = backing.Part

// OpenPath finds the file or disk at path. It resolves the path once: the result is the
// object itself (an O_PATH descriptor), even if a link or a directory of the path changes
// later. The Name of the result is the object's absolute path with every link resolved.
// OpenPath takes no lock and neither reads nor writes.
//
// It returns EISDIR for a directory, EINVAL for other types that are neither a regular
// file nor a block device, and ELOOP for a link of /proc/PID/fd (/dev/stdin).
func OpenPath(path string) (*os.File, error) { return backing.OpenPath(path) }

// OpenPathIn is OpenPath for a path below the directory root, which counts as /, as in
// chroot(2). It finds the mounts below root whatever namespace this process is in
// (RESOLVE_IN_ROOT in openat2(2), Linux 5.6). The Name of the result is the path.
func OpenPathIn(root *os.File, path string) (*os.File, error) { return backing.OpenPathIn(root, path) }

// OpenPart opens the part of an object of OpenPath that a device would serve. The part
// starts at offset bytes. It ends with the object, or after limit bytes if limit is not
// 0. OpenPart returns EINVAL for an offset that is not below the size.
func OpenPart(file *os.File, offset, limit uint64) (*Part, error) {
	return backing.OpenPart(file, offset, limit)
}

// Passed is what a server leaves open of a device's file or disk for the program that
// takes its place.
type Passed = backing.Passed

// openBacking opens an object of OpenPath for a configuration. It returns the errors of
// backing.Open.
func openBacking(file *os.File, cfg *Config) (*backing.Backing, error) {
	o, err := cfg.backingOptions(file.Name())
	if err != nil {
		return nil, err
	}
	return backing.Open(file, o)
}

// backingOptions returns the part of a configuration that is about the object of a name.
func (c *Config) backingOptions(name string) (*backing.Options, error) {
	if err := c.Transfer.check(c); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	o := &backing.Options{
		LockDir:  statefile.LockDir,
		ReadOnly: c.ReadOnly, Shared: c.Shared, Offset: c.Offset, SizeLimit: c.SizeLimit, SectorSize: c.SectorSize,
		DirectIO: c.DirectIO, MaxIOBytes: c.MaxIOBytes,
	}
	if t := &c.Transfer; !t.isNone() {
		o.Transfer = &backing.Transfer{SectorSize: t.SectorSize, AllowDiscards: t.AllowDiscards}
	}
	return o, nil
}

// LockedByOthers reports whether a program has a lock on the file of OpenPath (flock(2),
// fcntl(2)) in the way of a device that only reads or that writes. Such a lock keeps
// ublk-loop from nothing: any user who may read the file can have it.
func LockedByOthers(file *os.File, readOnly bool) (bool, error) {
	return backing.LockedByOthers(statefile.LockDir, file, readOnly)
}

// SweepLocks removes the locks that a killed server has left. Detach does that for the
// file of its device: SweepLocks is for a server that was killed before it had one.
func SweepLocks() error { return filelock.Sweep(statefile.LockDir) }
