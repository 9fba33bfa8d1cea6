package backing

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// probeDiscard finds out whether a disk takes discards from a ring (Linux
// 6.12), by one of no bytes: who knows the command says EINVAL to that
// (blk_validate_byte_range in block/ioctl.c), who does not, EOPNOTSUPP. Whatever
// else is said, there are no discards then.
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
