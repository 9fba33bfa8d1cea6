package loop

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// backing is the open file or disk behind a device. Its fields are fixed by
// openBacking; sizes and offsets are in bytes.
type backing struct {
	fd       int    // O_RDWR or O_RDONLY, O_CLOEXEC, O_DIRECT if direct; -1 when closed
	path     string // absolute, links resolved
	isDisk   bool   // a block device: a disk, a partition, a dm or md device
	readOnly bool
	direct   bool // I/O bypasses the page cache

	dev, ino uint64 // identity: st_dev and st_ino
	rdev     uint64 // st_rdev, of a disk

	sectorSize   uint32 // logical block size of the device made of it
	transferSize uint32 // sector size of the transfer, at most sectorSize; 0 for none
	offset, size uint64 // where in the backing the device starts; how long it is

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
	// maxIOAsked says that Config.MaxIOBytes is given, whatever the disk takes.
	maxIOAsked bool
	// queue are the limits of the disk, or of the disk under the file system.
	queue queueLimits
}

// openBacking opens, locks and describes the object of an O_PATH descriptor
// (OpenPath), as cfg wants it. It returns an error that wraps EBUSY when
// another holds it (a writer, a mount), EROFS, EACCES or EPERM when it cannot
// be written to, EINVAL for a size, offset or sector size that do not go
// together; where something can be done about it, a *hint.Error.
func openBacking(file *os.File, cfg *Config) (*backing, error) {
	b := &backing{fd: -1, path: file.Name(), readOnly: cfg.ReadOnly, maxIOAsked: cfg.MaxIOBytes != 0, allowDiscards: cfg.Transfer.AllowDiscards}
	if err := b.open(file, cfg); err != nil {
		_ = b.close()
		return nil, fmt.Errorf("open %s: %w", b.path, err)
	}
	return b, nil
}

func (b *backing) open(file *os.File, cfg *Config) error {
	if err := cfg.Transfer.check(cfg); err != nil {
		return err
	}
	if err := b.identify(file); err != nil {
		return err
	}
	if err := b.reopen(file, cfg); err != nil {
		return err
	}
	if err := b.lock(cfg); err != nil {
		return err
	}
	var err error
	if b.queue, err = b.readLimits("/sys"); err != nil {
		return err
	}
	if err := b.place(cfg); err != nil {
		return err
	}
	if err := b.checkWritable(); err != nil {
		return err
	}
	return b.chooseDirect(cfg.DirectIO)
}

// close closes the backing, and drops its lock by that.
func (b *backing) close() error {
	if b.fd < 0 {
		return nil
	}
	err := unix.Close(b.fd)
	b.fd = -1
	return err
}

// identify takes down what the object is.
func (b *backing) identify(file *os.File) error {
	if err := checkKind(int(file.Fd())); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	b.isDisk = st.Mode&unix.S_IFMT == unix.S_IFBLK
	b.dev, b.ino, b.rdev = st.Dev, st.Ino, st.Rdev
	return nil
}

// reopen opens the object for I/O. A disk that is written to is claimed
// (O_EXCL, bd_prepare_to_claim in block/bdev.c): a mounted one, or one that
// another has claimed, is EBUSY.
func (b *backing) reopen(file *os.File, cfg *Config) error {
	flags := unix.O_RDWR
	switch {
	case b.readOnly:
		flags = unix.O_RDONLY
	case b.isDisk && !cfg.Shared:
		flags |= unix.O_EXCL
	}
	var err error
	if b.fd, err = reopenQuietly(file, flags); err != nil {
		return b.explainOpen(file, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(b.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Dev != b.dev || st.Ino != b.ino || st.Rdev != b.rdev {
		return fmt.Errorf("another object than was found: %w", unix.ESTALE)
	}
	return nil
}

// explainOpen adds what can be done about an open that failed.
func (b *backing) explainOpen(file *os.File, err error) error {
	if b.readOnly {
		return err
	}
	if b.isDisk && errors.Is(err, unix.EBUSY) {
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
func (b *backing) checkWritable() error {
	switch {
	case b.isDisk:
		return b.checkDiskWritable()
	case b.readOnly:
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
func (b *backing) checkDiskWritable() error {
	if b.readOnly {
		return nil
	}
	protected, err := unix.IoctlGetUint32(b.fd, unix.BLKROGET)
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
func (b *backing) probePunchHole() error {
	var st unix.Stat_t
	if err := unix.Fstat(b.fd, &st); err != nil {
		return err
	}
	block := int64(b.blockSize)
	return unix.Fallocate(b.fd, punchHole, (st.Size+block-1)/block*block, block)
}
