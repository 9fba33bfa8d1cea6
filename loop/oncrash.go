package loop

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// OnCrash says what happens to a device, and to the requests that its server had, when
// the server ends without removing the device. The empty string means CrashFail.
type OnCrash string

// These are the values of an OnCrash. With all but the first, requests wait while there
// is no server. Recover starts another server, and Detach fails the requests.
const (
	// CrashFail removes the disk. Its requests fail with EIO.
	CrashFail OnCrash = "fail"
	// CrashRequeue keeps the disk. Requests that the server had not yet received wait.
	// The requests that it had fail with EIO, because it is unknown whether they were
	// carried out (UBLK_F_USER_RECOVERY, Linux 6.1).
	CrashRequeue OnCrash = "requeue"
	// CrashReissue keeps the disk, and all requests wait. The next server gets the
	// requests that the last one had, so that some are carried out twice. For a file that
	// has the same effect as once (UBLK_F_USER_RECOVERY_REISSUE, Linux 6.1).
	CrashReissue OnCrash = "reissue"
)

// features returns the features to request from the driver.
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

// onCrashOf returns the policy that a device's features implement.
func onCrashOf(f ublk.Features) OnCrash {
	switch {
	case !f.Recoverable():
		return CrashFail
	case f.Has(uapi.UBLK_F_USER_RECOVERY_REISSUE):
		return CrashReissue
	}
	return CrashRequeue
}

// crashFeatures returns the features to request from the driver. It refuses a file
// without a lock: writes of a killed server may still be running, and only the end of its
// lock tells the next server that they have ended.
func (c *Config) crashFeatures() (ublk.Features, error) {
	features, err := c.OnCrash.features()
	if err == nil && features != 0 && c.Shared && !c.ReadOnly {
		err = fmt.Errorf("on crash %s, of a file that is shared with other writers: %w", c.OnCrash, unix.EINVAL)
		return 0, hint.Add(err, "omit {shared} or {on_crash}")
	}
	return features, err
}

// checkCrashFeatures removes a new device that lacks requested features.
func checkCrashFeatures(dev *ublk.Device, want ublk.Features) error {
	if dev.Info().Features.Has(want) {
		return nil
	}
	return errors.Join(fmt.Errorf("on crash %s: %w", onCrashOf(want), ublk.ErrNotSupported), dev.Close())
}
