package backing

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

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
	r.GetSQE().PrepURingCmd(ring.FD(b.FD), BLOCK_URING_CMD_DISCARD)
	if err := r.SubmitAndWait(1); err != nil {
		return false, err
	}
	return errors.Is(unix.Errno(-r.CQE(0).Res), unix.EINVAL), nil
}
