package loop

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
)

// Part is a part of a file or disk, to be read.
type Part = backing.Part

// OpenPath finds the file or disk at path, once: what it returns is the object itself
// (an O_PATH descriptor), whatever a link or a directory on the way is changed to later.
// The Name of the result is the object's absolute path with every link resolved. It
// takes no lock and neither reads nor writes.
//
// It returns EISDIR for a directory, EINVAL for what else is neither a regular file nor
// a block device, ELOOP for a link of /proc/PID/fd (/dev/stdin).
func OpenPath(path string) (*os.File, error) { return backing.OpenPath(path) }

// OpenPathIn is OpenPath for a path below a directory that is taken for the root, as
// chroot(2) does: what is mounted there is found whatever namespace this process is in
// (RESOLVE_IN_ROOT in openat2(2), Linux 5.6). The Name of the result is the path.
func OpenPathIn(root *os.File, path string) (*os.File, error) { return backing.OpenPathIn(root, path) }

// OpenPart opens what of the object of OpenPath a device would be made of that starts
// offset bytes into it, and ends with it or after limit bytes, if that is not 0. It
// returns EINVAL for an offset that is not below the size.
func OpenPart(file *os.File, offset, limit uint64) (*Part, error) {
	return backing.OpenPart(file, offset, limit)
}

// openBacking opens the object of OpenPath as a configuration wants it. It returns the
// errors of backing.Open.
func openBacking(file *os.File, cfg *Config) (*backing.Backing, error) {
	if err := cfg.Transfer.check(cfg); err != nil {
		return nil, fmt.Errorf("open %s: %w", file.Name(), err)
	}
	o := backing.Options{
		ReadOnly: cfg.ReadOnly, Shared: cfg.Shared, Offset: cfg.Offset, SizeLimit: cfg.SizeLimit, SectorSize: cfg.SectorSize,
		DirectIO: cfg.DirectIO, MaxIOBytes: cfg.MaxIOBytes,
	}
	if t := &cfg.Transfer; !t.isNone() {
		o.Transfer = &backing.Transfer{SectorSize: t.SectorSize, AllowDiscards: t.AllowDiscards}
	}
	return backing.Open(file, &o)
}
