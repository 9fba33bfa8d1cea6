package loop

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Switch is auto, on or off.
type Switch = backing.Switch

// These are the values of a Switch. The empty string means SwitchAuto.
const (
	SwitchAuto = backing.SwitchAuto // on if possible
	SwitchOn   = backing.SwitchOn   // an error if not possible
	SwitchOff  = backing.SwitchOff
)

// Config describes the device to make of a file. The zero value of a field is its
// default.
type Config struct {
	// ID is the device's number; nil means the first free number.
	ID *uint32
	// ReadOnly makes the device read-only, and opens the file read-only.
	ReadOnly bool
	// Offset is the start of the device in the file, in bytes. It must be a multiple of
	// the sector size, unless the device is read-only.
	Offset uint64
	// SizeLimit is the maximum size of the device, in bytes; 0 means no limit.
	SizeLimit uint64
	// WholeSectors leaves out bytes at the end of the file, or of SizeLimit, that fill no
	// sector. Otherwise they are an error.
	WholeSectors bool
	// SectorSize is the device's logical block size in bytes: 512, 1024, 2048 or 4096. 0
	// means the disk's own for a disk, and for a file that of its partition table, or
	// 512.
	SectorSize uint32
	// DirectIO says whether I/O bypasses the page cache of the file.
	DirectIO Switch
	// ZeroCopy says whether the I/O of the backing file uses the pages of the requests
	// directly.
	ZeroCopy Switch
	// PartScan makes the kernel look for partitions.
	PartScan bool
	// Queues and Depth have the same meaning as in ublk.Options.
	Queues int
	Depth  int
	// MaxIOBytes is the size of the largest request, even if the backing device takes
	// less. 0 means the backing device's maximum, but at most 256 KiB if the driver
	// copies.
	MaxIOBytes uint32
	// Transfer describes how the file's bytes differ from the device's.
	Transfer TransferConfig
	// Key is the key of the transfer, nil if the transfer has none. Attach takes
	// ownership and closes it, even if it fails. The state file does not contain the key.
	Key *transfer.Secret
	// OnCrash says what happens to the device when its server is killed.
	OnCrash OnCrash
	// Shared attaches a file even if another writer holds it.
	Shared bool
	// KeepSpace keeps the space that the file has: the device has neither discards nor
	// write-zeroes, which would punch holes.
	KeepSpace bool
	// Table is the text of the tables that the device serves (AttachTable); empty for a
	// device of one file. It contains no key.
	Table string
	// Ref is a text of the user's that names the device for people and udev, at most MaxRef
	// bytes of UTF-8 without control characters; empty for none.
	Ref string
	// Autoclear makes the Server remove the device when it is no longer in use.
	Autoclear bool
}

// MaxRef is the maximum length of Config.Ref in bytes, that of the kernel's loop devices
// (LO_NAME_SIZE in linux/loop.h).
const MaxRef = 63

// checkRef refuses a reference that state files and udev cannot have.
func (c *Config) checkRef() error {
	bad := func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) }
	if len(c.Ref) > MaxRef || strings.IndexFunc(c.Ref, bad) >= 0 {
		return fmt.Errorf("reference %q: not a text of at most %d bytes: %w", c.Ref, MaxRef, unix.EINVAL)
	}
	return nil
}

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
