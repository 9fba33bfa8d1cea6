package backing

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/ring"
)

// These bound the distance between the end of a file and the hole of probePunchHole.
const (
	nearestHole  = 1 << 30
	farthestHole = 1 << 62
)

// probePunchHole finds out whether a file takes holes. It punches one far behind the end of the
// file, which changes neither size nor content. The block at the end is not free for that: another
// program may write it meanwhile, or may have allocated it for later.
//
// The kernel refuses a hole behind the largest offset of the file system with EFBIG, and changes
// nothing (vfs_fallocate in fs/open.c). The probe then takes half the distance. A file that ends
// close to that offset has no discards.
func (b *Backing) probePunchHole() error {
	var st unix.Stat_t
	if err := unix.Fstat(b.FD, &st); err != nil {
		return err
	}
	block, err := uint64(b.blockSize), error(unix.EFBIG)
	for distance := uint64(farthestHole); distance >= nearestHole && errors.Is(err, unix.EFBIG); distance /= 2 {
		start := (uint64(st.Size) + distance) / block * block
		if start <= math.MaxInt64-block {
			err = eintr.Repeat(func() error { return unix.Fallocate(b.FD, PunchHole, int64(start), int64(block)) })
		}
	}
	return err
}

// probeDiscard finds out whether a disk accepts discards from a ring (Linux 6.12). It
// sends a discard of no bytes. A kernel with the command answers EINVAL
// (blk_validate_byte_range in block/ioctl.c), and a kernel without it answers EOPNOTSUPP.
// Any other answer also means that there are no discards.
func (b *Backing) probeDiscard() (bool, error) {
	r, err := ring.New(ring.Options{})
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }()
	PrepDiscard(r.GetSQE(), ring.FD(b.FD), 0, 0)
	if err := r.SubmitAndWait(1); err != nil {
		return false, err
	}
	return errors.Is(unix.Errno(-r.CQE(0).Res), unix.EINVAL), nil
}
