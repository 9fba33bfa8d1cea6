package loop

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
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

// openBacking opens an object of OpenPath for a configuration. It returns the errors of
// backing.Open.
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
