package loop

import (
	"encoding/hex"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// checkSector is a sector that no disk has, because a disk ends before byte 2^63.
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
