package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// Backing is the open file or disk of a device. Open sets its fields. Only Share, Close, and
// a stack that gets a store above the file change them. Sizes and offsets are in bytes.
type Backing struct {
	FD       int    // of File; -1 when closed
	Path     string // absolute, links resolved
	IsDisk   bool   // a block device: a disk, a partition, a dm or md device
	ReadOnly bool
	Direct   bool // I/O bypasses the page cache

	Dev, Ino uint64 // identity: st_dev and st_ino
	Rdev     uint64 // st_rdev, of a disk
	// Identity distinguishes the object from others that have the same numbers at other
	// times.
	Identity identity.File

	SectorSize   uint32 // logical block size of the device
	TransferSize uint32 // sector size of the transfer, at most SectorSize; 0 without a transfer
	Offset, Size uint64 // start of the device in the backing, and its size

	// File is open O_RDWR or O_RDONLY, O_CLOEXEC, and O_DIRECT if direct; nil when closed.
	File *os.File
	// Lock keeps other servers out; nil for Options.Shared, and for a disk that is only read.
	Lock *filelock.Lock

	// punchHole says that fallocate(FALLOC_FL_PUNCH_HOLE) works on a file.
	punchHole bool
	keepSpace bool // as in Options
	// ringDiscard says that a disk accepts discards from a ring.
	ringDiscard bool
	// blockSize is the unit in which a file's space is allocated.
	blockSize uint32
	// memAlign is the alignment of addresses that O_DIRECT requires; 0 if it is unknown.
	memAlign uint32
	// allowDiscards says that a transfer passes discards on.
	allowDiscards bool
	// maxIOAsked is Options.MaxIOBytes.
	maxIOAsked uint32
	// queue has the limits of the disk, or of the disk under the file system.
	queue queueLimits
}

// Open opens, locks and describes the object of an O_PATH descriptor (OpenPath). It
// returns an error that wraps EBUSY if the object is in use (by a writer or a mount),
// EROFS, EACCES or EPERM if it cannot be written to, EAGAIN if another program has a
// lease on it, and EINVAL if its size, the offset and the sector size do not fit
// together. If the user can do something about the error, it is a *hint.Error.
func Open(file *os.File, o *Options) (*Backing, error) {
	b := newBacking(file, o)
	if err := b.open(file, o); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("open %s: %w", b.Path, err)
	}
	return b, nil
}

func newBacking(file *os.File, o *Options) *Backing {
	return &Backing{FD: -1, Path: file.Name(), ReadOnly: o.ReadOnly, maxIOAsked: o.MaxIOBytes, allowDiscards: o.Transfer != nil && o.Transfer.AllowDiscards}
}

func (b *Backing) open(file *os.File, o *Options) error {
	if err := b.identify(file); err != nil {
		return err
	}
	if err := b.reopen(file, o); err != nil {
		return err
	}
	if err := b.describe(o, nil); err != nil {
		return err
	}
	return b.checkNotNeeded(o)
}

// describe locks what is open, and finds out what a device can be made of it.
func (b *Backing) describe(o *Options, passed *os.File) error {
	if err := b.lock(o, passed); err != nil {
		return err
	}
	var err error
	if b.queue, err = b.readLimits("/sys"); err != nil {
		return err
	}
	b.keepSpace = o.KeepSpace
	if err := b.setExtent(o); err != nil {
		return err
	}
	if err := b.checkWritable(); err != nil {
		return err
	}
	return b.chooseDirect(o.DirectIO)
}

// Close closes the backing, and so releases its lock.
func (b *Backing) Close() error {
	var err error
	if b.File != nil {
		err = b.File.Close()
	}
	if b.Lock != nil {
		err = errors.Join(err, b.Lock.Release())
	}
	b.FD, b.File, b.Lock = -1, nil, nil
	return err
}

// CloseFiles closes the files of a backing whose lock another process holds.
func (b *Backing) CloseFiles() error {
	err := b.File.Close()
	if b.Lock != nil {
		b.Lock.CloseFiles()
	}
	b.FD, b.File, b.Lock = -1, nil, nil
	return err
}

// use has the backing work on an open file.
func (b *Backing) use(file *os.File) { b.File, b.FD = file, int(file.Fd()) }

// identify records the identity of the object.
func (b *Backing) identify(file *os.File) error {
	if err := checkKind(int(file.Fd())); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	b.IsDisk = st.Mode&unix.S_IFMT == unix.S_IFBLK
	b.Dev, b.Ino, b.Rdev = st.Dev, st.Ino, st.Rdev
	return nil
}

// reopen opens the object for I/O. It claims a disk that is to be written to (O_EXCL,
// bd_prepare_to_claim in block/bdev.c). If the disk is mounted or otherwise claimed, the
// open fails with EBUSY.
func (b *Backing) reopen(file *os.File, o *Options) error {
	flags := unix.O_RDWR
	switch {
	case b.ReadOnly:
		flags = unix.O_RDONLY
	case b.IsDisk && !o.Shared:
		flags |= unix.O_EXCL
	}
	fd, err := reopenQuietly(file, flags)
	if err != nil {
		return b.explainOpen(file, err)
	}
	b.use(os.NewFile(uintptr(fd), b.Path))
	var st unix.Stat_t
	if err := unix.Fstat(b.FD, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Dev != b.Dev || st.Ino != b.Ino || st.Rdev != b.Rdev {
		return fmt.Errorf("the object was replaced meanwhile: %w", unix.ESTALE)
	}
	b.Identity, err = identity.OfDescriptor(b.FD)
	return err
}

// explainOpen adds a hint to an error of an open.
func (b *Backing) explainOpen(file *os.File, err error) error {
	if b.ReadOnly || errors.Is(err, unix.EAGAIN) {
		return err
	}
	if b.IsDisk && errors.Is(err, unix.EBUSY) {
		return hint.Add(fmt.Errorf("mounted or in use: %w", err), "unmount it, attach it with {read_only}, or insist with {shared}")
	}
	if fd, roErr := reopen(file, unix.O_RDONLY); roErr == nil {
		_ = unix.Close(fd)
		return hint.Add(err, "attach it with {read_only}")
	}
	return err
}

// checkWritable detects obstacles that a read-write open does not report: a disk that is
// write-protected or zoned, and a file that is swap space or sealed.
func (b *Backing) checkWritable() error {
	switch {
	case b.IsDisk:
		return b.checkDiskWritable()
	case b.ReadOnly:
		return nil
	}
	if err := b.checkSeals(); err != nil {
		return err
	}
	err := b.probePunchHole()
	if errors.Is(err, unix.ETXTBSY) {
		return hint.Add(fmt.Errorf("in use as swap space: %w", err), "attach it with {read_only}")
	}
	b.punchHole = err == nil
	return nil
}

// checkSeals refuses a file in memory whose seals make every write fail (memfd_create(2)).
func (b *Backing) checkSeals() error {
	seals, err := unix.FcntlInt(b.File.Fd(), unix.F_GET_SEALS, 0)
	if err == nil && seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return hint.Add(fmt.Errorf("sealed against writes: %w", unix.EPERM), "attach it with {read_only}")
	}
	return nil // other files have no seals, which is EINVAL
}

// checkDiskWritable refuses a disk on which every write would fail. The open of a
// write-protected disk succeeds, but blkdev_write_iter in block/fops.c fails.
func (b *Backing) checkDiskWritable() error {
	if b.ReadOnly {
		return nil
	}
	protected, err := unix.IoctlGetUint32(b.FD, unix.BLKROGET)
	switch {
	case err != nil:
		return fmt.Errorf("get write protection: %w", err)
	case protected != 0:
		return hint.Add(fmt.Errorf("write-protected: %w", unix.EROFS), "attach it with {read_only}")
	case b.queue.zoned:
		return hint.Add(fmt.Errorf("zoned, takes writes in sequence only: %w", unix.EOPNOTSUPP), "attach it with {read_only}")
	case b.queue.discardMaxBytes == 0:
		return nil
	}
	b.ringDiscard, err = b.probeDiscard()
	return err
}

// DeviceNumber returns the number of the disk, or of the file's file system.
func (b *Backing) DeviceNumber() uint64 {
	if b.IsDisk {
		return b.Rdev
	}
	return b.Dev
}
