package loop

import (
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// TransferConfig describes how the bytes of a device differ from those of its file. The
// zero value means that they do not differ. Sizes are in bytes.
type TransferConfig struct {
	// Name is a name of package transfer; the empty string means transfer.None.
	Name string
	// KeyBytes is the length of the key. Attach sets it.
	KeyBytes int
	// SectorSize is the number of bytes that are encrypted as a unit. 0 means the
	// device's sector size, which is never smaller.
	SectorSize uint32
	// IVOffset and IVLargeSectors have the same meaning as in transfer.Options.
	IVOffset       uint64
	IVLargeSectors bool
	// AllowDiscards passes discards on, which reveals where nothing is stored.
	AllowDiscards bool
	// LUKS is the version of the header that this configuration comes from, 0 if there is
	// none. UUID is the header's UUID.
	LUKS int
	UUID string
	// LUKSOffset is the offset of the volume in the file, in bytes: of its header, unless
	// that is detached.
	LUKSOffset uint64
}

// isNone reports whether the device has the same bytes as its file.
func (c *TransferConfig) isNone() bool { return c.Name == "" || c.Name == transfer.None }

// check refuses combinations that contradict the rest of the configuration.
func (c *TransferConfig) check(cfg *Config) error {
	if c.isNone() {
		if cfg.Key != nil {
			return fmt.Errorf("a key without a transfer: %w", unix.EINVAL)
		}
		return nil
	}
	if cfg.ZeroCopy == SwitchOn {
		err := fmt.Errorf("zero copy is not possible with transfer %s: %w", c.Name, unix.EINVAL)
		return hint.Add(err, "leave {zero_copy} out")
	}
	return nil
}

// makeTransfer makes the transfer of a device of one file. After an error, closeTransfer wipes
// what it has kept of the key.
func (d *Device) makeTransfer(cfg *Config) error {
	err := d.keepKey(cfg.Key)
	if err == nil {
		d.transfer, err = newTransfer(d.b, cfg)
	}
	return err
}

// keepKey keeps a copy of the key in a server of many devices.
func (d *Device) keepKey(key *transfer.Secret) error {
	if key == nil || !d.many {
		return nil
	}
	var err error
	d.key, err = key.Clone()
	return err
}

// newTransfer makes the transfer, which takes ownership of the key. It returns nil
// without a transfer.
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
	switch {
	case errors.Is(err, transfer.ErrNoKey):
		err = hint.Add(err, "give it with {key}; ublk-loop keeps no copy")
	case errors.Is(err, transfer.ErrKey) && (c.KeyBytes == 33 || c.KeyBytes == 65): // echo writes a newline behind a key
		err = hint.Add(err, "a newline at the end counts as a part of the key; {keyfile_size=%d} leaves it out", c.KeyBytes-1)
	}
	return t, err
}

// describeTransfer returns the transfer as list shows it, with the defaults filled in.
func describeTransfer(b *backing.Backing, cfg *Config) TransferConfig {
	c := cfg.Transfer
	if c.isNone() {
		c.Name = transfer.None
	}
	c.SectorSize = b.TransferSize
	return c
}

// checkSector is a sector that no disk has, because a disk ends before byte 2^63. With 32 bits its number is that of
// the first sector.
const checkSector = 1 << 54

// keyCheck returns a check of the key, which the state file keeps. It is four bytes of
// the encryption of zeroes, in a sector that no disk has. It accepts one wrong key of
// 2^32, and reveals no more of the key than any sector on the disk does. It is empty for
// XOR, because these bytes would be the key.
func keyCheck(c *TransferConfig, t transfer.Transfer, sectorSize uint32) string {
	if c.Name == transfer.XOR {
		return ""
	}
	sector := make([]byte, sectorSize)
	t.Encrypt(sector, checkSector)
	return hex.EncodeToString(sector[:4])
}

// checkKey refuses a key that differs from the device's original key, because new writes
// with it would be noise on the disk.
func (s *state) checkKey(d *Device) error {
	if s.KeyCheck == "" || s.KeyCheck == keyCheck(&s.Config.Transfer, d.transfer, d.b.TransferSize) {
		return nil
	}
	return fmt.Errorf("not the key that the device was made with: %w", unix.EKEYREJECTED)
}
