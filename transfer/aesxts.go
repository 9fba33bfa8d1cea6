package transfer

import (
	"fmt"
	"math/bits"

	"github.com/ublk-loop/ublk-loop/transfer/xts"
)

// aesXTS is dm-crypt's aes-xts-plain64.
type aesXTS struct {
	cipher     *xts.Cipher
	schedule   *Secret // the key schedule of cipher
	sectorSize int
	ivOffset   uint64
	ivShift    int    // shift from a sector's number to its iv
	ivStep     uint64 // difference between the ivs of two adjacent sectors
}

var _ Transfer = (*aesXTS)(nil)

func newAESXTS(key []byte, opts Options) (*aesXTS, error) {
	schedule, err := NewSecret(xts.ScheduleSize)
	if err != nil {
		return nil, err
	}
	cipher, err := xts.New(schedule.Bytes(), key)
	if err != nil {
		schedule.Close()
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	x := &aesXTS{cipher: cipher, schedule: schedule, sectorSize: int(opts.SectorSize), ivOffset: opts.IVOffset}
	x.ivStep = uint64(opts.SectorSize >> SectorShift)
	if opts.IVLargeSectors {
		x.ivShift, x.ivStep = bits.TrailingZeros64(x.ivStep), 1
	}
	return x, nil
}

// iv returns the iv number of a sector (plain64): the sector number plus the
// offset, in units of 512 bytes, or of the transform's sectors with large
// sectors.
func (x *aesXTS) iv(sector uint64) uint64 { return (sector + x.ivOffset) >> x.ivShift }

// Encrypt implements Transfer.
func (x *aesXTS) Encrypt(buf []byte, sector uint64) {
	x.cipher.Encrypt(buf, x.sectorSize, x.iv(sector), x.ivStep)
}

// Decrypt implements Transfer.
func (x *aesXTS) Decrypt(buf []byte, sector uint64) {
	x.cipher.Decrypt(buf, x.sectorSize, x.iv(sector), x.ivStep)
}

// Close implements Transfer.
func (x *aesXTS) Close() error {
	x.cipher.Wipe()
	x.schedule.Close()
	return nil
}
