package backing

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Backing is the open file or disk behind a device. Its fields are fixed by
// Open; sizes and offsets are in bytes.
type Backing struct {
	FD       int    // O_RDWR or O_RDONLY, O_CLOEXEC, O_DIRECT if direct; -1 when closed
	Path     string // absolute, links resolved
	IsDisk   bool   // a block device: a disk, a partition, a dm or md device
	ReadOnly bool
	Direct   bool // I/O bypasses the page cache

	Dev, Ino uint64 // identity: st_dev and st_ino
	Rdev     uint64 // st_rdev, of a disk
	// Identity tells the object from others that have its numbers at other times.
	Identity identity.File

	SectorSize   uint32 // logical block size of the device made of it
	TransferSize uint32 // sector size of the transfer, at most sectorSize; 0 for none
	Offset, Size uint64 // where in the backing the device starts; how long it is

	// punchHole says that fallocate(FALLOC_FL_PUNCH_HOLE) works on a file.
	punchHole bool
	// ringDiscard says that a disk takes discards from a ring.
	ringDiscard bool
	// blockSize is the unit in which a file's space is allocated.
	blockSize uint32
	// memAlign is what O_DIRECT asks of an address; 0 when it is not known.
	memAlign uint32
	// allowDiscards says that a transfer does not keep discards back.
	allowDiscards bool
	// maxIOAsked is Options.MaxIOBytes.
	maxIOAsked uint32
	// queue are the limits of the disk, or of the disk under the file system.
	queue queueLimits
}

// Open opens, locks and describes the object of an O_PATH descriptor
// (OpenPath), as o wants it. It returns an error that wraps EBUSY when
// another holds it (a writer, a mount), EROFS, EACCES or EPERM when it cannot
// be written to, EAGAIN when another program has a lease on it, EINVAL for a size, offset or sector size that do not go
// together; where something can be done about it, a *hint.Error.
func Open(file *os.File, o *Options) (*Backing, error) {
	b := &Backing{FD: -1, Path: file.Name(), ReadOnly: o.ReadOnly, maxIOAsked: o.MaxIOBytes, allowDiscards: o.Transfer != nil && o.Transfer.AllowDiscards}
	if err := b.open(file, o); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("open %s: %w", b.Path, err)
	}
	return b, nil
}

func (b *Backing) open(file *os.File, o *Options) error {
	if err := b.identify(file); err != nil {
		return err
	}
	if err := b.reopen(file, o); err != nil {
		return err
	}
	if err := b.lock(o); err != nil {
		return err
	}
	var err error
	if b.queue, err = b.readLimits("/sys"); err != nil {
		return err
	}
	if err := b.setExtent(o); err != nil {
		return err
	}
	if err := b.checkWritable(); err != nil {
		return err
	}
	return b.chooseDirect(o.DirectIO)
}

// Close closes the backing, and drops its lock by that.
func (b *Backing) Close() error {
	if b.FD < 0 {
		return nil
	}
	err := unix.Close(b.FD)
	b.FD = -1
	return err
}

// identify takes down what the object is.
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

// reopen opens the object for I/O. A disk that is written to is claimed
// (O_EXCL, bd_prepare_to_claim in block/bdev.c): a mounted one, or one that
// another has claimed, is EBUSY.
func (b *Backing) reopen(file *os.File, o *Options) error {
	flags := unix.O_RDWR
	switch {
	case b.ReadOnly:
		flags = unix.O_RDONLY
	case b.IsDisk && !o.Shared:
		flags |= unix.O_EXCL
	}
	var err error
	if b.FD, err = reopenQuietly(file, flags); err != nil {
		return b.explainOpen(file, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(b.FD, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Dev != b.Dev || st.Ino != b.Ino || st.Rdev != b.Rdev {
		return fmt.Errorf("another object than was found: %w", unix.ESTALE)
	}
	b.Identity, err = identity.OfDescriptor(b.FD)
	return err
}

// explainOpen adds what can be done about an open that failed.
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

// checkWritable finds out what a read-write open does not tell: a disk that is
// write-protected or written to in sequence only, a file that is swapped to.
func (b *Backing) checkWritable() error {
	switch {
	case b.IsDisk:
		return b.checkDiskWritable()
	case b.ReadOnly:
		return nil
	}
	err := b.probePunchHole()
	if errors.Is(err, unix.ETXTBSY) {
		return hint.Add(fmt.Errorf("in use as swap space: %w", err), "attach it with {read_only}")
	}
	b.punchHole = err == nil
	return nil
}

// checkDiskWritable refuses a disk whose writes would fail one by one. Opening
// a write-protected disk succeeds; blkdev_write_iter in block/fops.c fails.
func (b *Backing) checkDiskWritable() error {
	if b.ReadOnly {
		return nil
	}
	protected, err := unix.IoctlGetUint32(b.FD, unix.BLKROGET)
	switch {
	case err != nil:
		return fmt.Errorf("ask for write protection: %w", err)
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

// probePunchHole punches a hole where there is nothing, in the first block
// past the end, which changes neither size nor content. Whatever fails, be it
// that the end is the largest offset of the file system, leaves discards out.
func (b *Backing) probePunchHole() error {
	var st unix.Stat_t
	if err := unix.Fstat(b.FD, &st); err != nil {
		return err
	}
	block := int64(b.blockSize)
	return unix.Fallocate(b.FD, holeMode, (st.Size+block-1)/block*block, block)
}

// DeviceNumber returns the number of the disk, or that of the file's file system.
func (b *Backing) DeviceNumber() uint64 {
	if b.IsDisk {
		return b.Rdev
	}
	return b.Dev
}

// holeMode is the mode of fallocate(2) that gives space back and keeps the size.
const holeMode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
