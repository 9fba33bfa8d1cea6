package loop

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
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

// OpenDescriptor is OpenPath for the object of an open descriptor, which may have no name
// any more, or never had one (memfd_create(2)). The Name of the result is what the kernel
// calls the object, such as "/tmp/file (deleted)". It returns EBADF for a descriptor that can
// only be read, unless the device is read-only.
func OpenDescriptor(fd int, readOnly bool) (*os.File, error) {
	return backing.OpenDescriptor(fd, readOnly)
}

// OpenPathIn is OpenPath for a path below the directory root, which counts as /, as in
// chroot(2). It finds the mounts below root whatever namespace this process is in
// (RESOLVE_IN_ROOT in openat2(2), Linux 5.6). The Name of the result is the path.
func OpenPathIn(root *os.File, path string) (*os.File, error) { return backing.OpenPathIn(root, path) }

// OpenCachedPathIn is OpenPathIn, but does not wait for a file system (RESOLVE_CACHED in openat2(2), Linux 5.12). It
// returns an error that wraps EAGAIN for a path that the kernel does not have in its caches.
func OpenCachedPathIn(root *os.File, path string) (*os.File, error) {
	return backing.OpenCachedPathIn(root, path)
}

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

// openNew is openBacking for a new device. It returns an error that wraps EBUSY if another device
// has the part, although it has no lock of it.
func openNew(ctl *ublk.Control, file *os.File, cfg *Config, shared *threads) (*backing.Backing, error) {
	b, err := openBacking(file, cfg)
	if err != nil {
		return nil, err
	}
	if err = checkGrown(ctl, b, cfg.lockRange()); err == nil {
		err = checkWaiting(ctl, shared.serves(), lockedPlaces(cfg.lockRange(), b))
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// lockRange returns the part of the file or disk that a device of this configuration locks:
// its own part, from the header of a LUKS volume on.
func (c *Config) lockRange() filelock.Range {
	r := filelock.Range{Offset: c.Offset}
	if c.Transfer.LUKS != 0 {
		r.Offset = min(r.Offset, c.Transfer.LUKSOffset)
	}
	if c.SizeLimit != 0 && c.SizeLimit <= math.MaxInt64 && c.Offset <= math.MaxInt64-c.SizeLimit {
		r.Length = c.Offset + c.SizeLimit - r.Offset
	}
	return r
}

// lockRange returns the part that the server of a device locks, which may have grown beyond
// its limit.
func (s *state) lockRange(size uint64) filelock.Range {
	c := s.Config
	if c.SizeLimit != 0 {
		c.SizeLimit = max(c.SizeLimit, size)
	}
	return c.lockRange()
}

// checkGrown returns an error that wraps EBUSY if another device has grown into the part
// of a new one. The server of a device that is resized does not learn of that, and so does
// not lock the new part.
func checkGrown(ctl *ublk.Control, b *backing.Backing, part filelock.Range) error {
	if b.Lock == nil {
		return nil
	}
	if beside, err := b.Lock.HasNeighbours(); err != nil || !beside {
		return err
	}
	list, err := List(ctl)
	if err != nil {
		return err
	}
	for i := range list {
		s := &list[i]
		if s.SizeLimit == 0 || s.Size <= s.SizeLimit || !part.Overlaps(filelock.Range{Offset: s.Offset, Length: s.Size}) {
			continue
		}
		is, err := s.isOf(b.Identity)
		if err != nil {
			return err
		}
		if is {
			return fmt.Errorf("open %s: %s has grown into that part: %w", b.Path, s.Device, unix.EBUSY)
		}
	}
	return nil
}

// backingOptions returns the part of a configuration that is about the object of a name.
func (c *Config) backingOptions(name string) (*backing.Options, error) {
	if err := c.Transfer.check(c); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if err := c.checkRef(); err != nil {
		return nil, err
	}
	o := &backing.Options{
		LockDir:  statefile.LockDir,
		ReadOnly: c.ReadOnly, Shared: c.Shared, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: c.DirectIO, MaxIOBytes: c.MaxIOBytes, KeepSpace: c.KeepSpace, Lock: c.lockRange(),
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

// LoopDevice returns the name of a loop device of the kernel that has the file of OpenPath, and
// whether it is read-only. The name is empty if none is found. Such a device takes no lock.
func LoopDevice(file *os.File) (name string, readOnly bool) { return backing.LoopDevice(file.Name()) }

// SweepLocks removes the locks that a killed server has left. Detach does that for the
// file of its device: SweepLocks is for a server that was killed before it had one.
func SweepLocks() error { return filelock.Sweep(statefile.LockDir) }

// openFreed opens the file or disk when the last server, and the holder of a lease on the
// file, have released it, and locks a part of it. If files were passed, it takes them over
// instead. giveBack undoes that.
func openFreed(file *os.File, cfg *Config, locked filelock.Range, passed []Passed) (b *backing.Backing, giveBack func() error, err error) {
	err = untilFree(func() error {
		b, giveBack, err = openOrAdopt(file, cfg, locked, passed)
		return err
	})
	switch {
	case err != nil:
		return nil, nil, err
	case b.Size != cfg.SizeLimit:
		return nil, nil, errors.Join(fmt.Errorf("%s has become smaller: %w", b.Path, unix.EINVAL), giveBack())
	}
	return b, giveBack, nil
}

// untilFree calls open until its error wraps neither EBUSY nor EAGAIN, but not for longer than
// backingTimeout: an operation of a killed server, or a lease, may still keep a file. Nothing reports
// their end to another process.
func untilFree(open func() error) error {
	deadline := time.Now().Add(backingTimeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := open()
		switch {
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN):
			return err
		case time.Now().After(deadline):
			return hint.Add(err, "end the program that uses it, and recover again")
		}
		<-time.After(pause)
	}
}

func openOrAdopt(file *os.File, cfg *Config, locked filelock.Range, passed []Passed) (b *backing.Backing, giveBack func() error, err error) {
	o, err := cfg.backingOptions(file.Name())
	if err != nil {
		return nil, nil, err
	}
	o.Lock = locked
	if passed == nil {
		b, err = backing.Open(file, o)
		return b, func() error { return b.Close() }, err
	}
	b, err = backing.Adopt(passed[0], o)
	return b, func() error { b.Disown(); return nil }, err
}
