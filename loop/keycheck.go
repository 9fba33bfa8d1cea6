package loop

import (
	"encoding/hex"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// checkSector is a sector that no disk has: a disk ends before byte 2^63.
const checkSector = 1 << 54

// keyCheck returns what tells a key from another, to be kept with the device:
// four bytes of what its cipher makes of zeroes, in a sector that no disk has.
// They let one wrong key of 2^32 pass, and tell no more of the key than any
// sector on the disk does. It is empty for XOR, of which they would be the key.
func keyCheck(c *TransferConfig, t transfer.Transfer, sectorSize uint32) string {
	if c.Name != transfer.AESXTSPlain64 {
		return ""
	}
	sector := make([]byte, sectorSize)
	t.Encrypt(sector, checkSector)
	return hex.EncodeToString(sector[:4])
}

// checkKey refuses another key than the device was made with: through it, what
// is written next would be noise on the disk.
func (s *state) checkKey(d *Device) error {
	if s.KeyCheck == "" || s.KeyCheck == keyCheck(&s.Config.Transfer, d.transfer, d.b.TransferSize) {
		return nil
	}
	return fmt.Errorf("another key than the device was made with: %w", unix.EKEYREJECTED)
}
