package loop

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// OnCrash is what becomes of a device, and of the requests that its server had,
// when the server ends without removing it. The empty string means CrashFail.
type OnCrash string

// The values of an OnCrash. With those but the first, requests wait for as long
// as there is no server: Recover makes another, Detach fails them.
const (
	// CrashFail removes the disk. Its requests fail with EIO.
	CrashFail OnCrash = "fail"
	// CrashRequeue keeps the disk. Requests that the server had not been
	// given wait, those that it had fail with EIO: whether they were carried
	// out is not known (UBLK_F_USER_RECOVERY, Linux 6.1).
	CrashRequeue OnCrash = "requeue"
	// CrashReissue keeps the disk, and all requests wait: those that the
	// server had are given to the next, so that some are carried out twice,
	// which for a file is the same as once (UBLK_F_USER_RECOVERY_REISSUE,
	// Linux 6.1).
	CrashReissue OnCrash = "reissue"
)

// features returns what the driver is asked for.
func (c OnCrash) features() (ublk.Features, error) {
	switch c {
	case CrashFail, "":
		return 0, nil
	case CrashRequeue:
		return uapi.UBLK_F_USER_RECOVERY, nil
	case CrashReissue:
		return uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE, nil
	}
	return 0, fmt.Errorf("on crash %q: not fail, requeue or reissue: %w", string(c), unix.EINVAL)
}

// onCrashOf returns what a device's features stand for.
func onCrashOf(f ublk.Features) OnCrash {
	switch {
	case !f.Recoverable():
		return CrashFail
	case f.Has(uapi.UBLK_F_USER_RECOVERY_REISSUE):
		return CrashReissue
	}
	return CrashRequeue
}

// crashFeatures returns what the driver is asked for. A file that is not locked
// is refused: a server that was killed may still have writes under way, and the
// end of them, which the next has to wait for, is the end of its lock.
func (c *Config) crashFeatures() (ublk.Features, error) {
	features, err := c.OnCrash.features()
	if err == nil && features != 0 && c.Shared && !c.ReadOnly {
		err = fmt.Errorf("on crash %s, of a file that is shared with other writers: %w", c.OnCrash, unix.EINVAL)
		return 0, hint.Add(err, "leave out {shared} or {on_crash}")
	}
	return features, err
}

// checkCrashFeatures removes a new device that lacks what it was asked for.
func checkCrashFeatures(dev *ublk.Device, want ublk.Features) error {
	if dev.Info().Features.Has(want) {
		return nil
	}
	return errors.Join(fmt.Errorf("on crash %s: %w", onCrashOf(want), ublk.ErrNotSupported), dev.Close())
}
