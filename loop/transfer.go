package loop

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// TransferConfig says how the bytes of a device differ from those of its file.
// The zero value says that they don't. Sizes are in bytes.
type TransferConfig struct {
	// Name is one of package transfer's; the empty string means transfer.None.
	Name string
	// KeyBytes is the length of the key, which is filled in by Attach.
	KeyBytes int
	// SectorSize is how many bytes are encrypted at a time. 0 means the
	// device's sector size, which is never smaller.
	SectorSize uint32
	// IVOffset and IVLargeSectors are those of transfer.Options.
	IVOffset       uint64
	IVLargeSectors bool
	// AllowDiscards lets discards through, which show where nothing is stored.
	AllowDiscards bool
	// LUKS is the version of the header that all of this is from, 0 for none,
	// and UUID what that says.
	LUKS int
	UUID string
	// LUKSOffset is where in the file the header is, in bytes.
	LUKSOffset uint64
}

// isNone reports whether the device has its file's bytes.
func (c *TransferConfig) isNone() bool { return c.Name == "" || c.Name == transfer.None }

// check refuses what goes together with no other part of the configuration.
func (c *TransferConfig) check(cfg *Config) error {
	if c.isNone() {
		if cfg.Key != nil {
			return fmt.Errorf("a key, and no transfer that takes it: %w", unix.EINVAL)
		}
		return nil
	}
	if cfg.ZeroCopy == SwitchOn {
		err := fmt.Errorf("zero copy with transfer %s, which works on a copy: %w", c.Name, unix.EINVAL)
		return hint.Add(err, "leave {zero_copy} out")
	}
	return nil
}

// newTransfer makes the transform, which takes the key over; nil for none.
func newTransfer(b *backing.Backing, cfg *Config) (transfer.Transfer, error) {
	c := &cfg.Transfer
	if c.isNone() {
		return nil, nil
	}
	if cfg.Key != nil {
		c.KeyBytes = len(cfg.Key.Bytes())
	}
	t, err := transfer.New(c.Name, cfg.Key, transfer.Options{
		SectorSize: b.TransferSize, IVOffset: c.IVOffset, IVLargeSectors: c.IVLargeSectors,
	})
	cfg.Key = nil
	if errors.Is(err, transfer.ErrNoKey) {
		err = hint.Add(err, "give it with {key}; no copy of it is kept")
	}
	return t, err
}

// describeTransfer returns what list shows of the transform, with what was left
// to us filled in.
func describeTransfer(b *backing.Backing, cfg *Config) TransferConfig {
	c := cfg.Transfer
	if c.isNone() {
		c.Name = transfer.None
	}
	c.SectorSize = b.TransferSize
	return c
}
