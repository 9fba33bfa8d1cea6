package transfer

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/ublk-loop/ublk-loop/transfer/xts"
)

// aesXTS is dm-crypt's aes-xts-plain64, or aes-xts-plain.
type aesXTS struct {
	cipher     *xts.Cipher
	schedule   *Secret // the key schedule of cipher
	sectorSize int
	ivOffset   uint64
	ivShift    int    // shift from a sector's number to its iv
	ivStep     uint64 // difference between the ivs of two adjacent sectors
	ivMax      uint64 // the largest iv number, of which all bits are set; 0 follows
}

var _ Transfer = (*aesXTS)(nil)

// newAESXTS returns a transfer with iv numbers up to ivMax, at most.
func newAESXTS(key []byte, opts Options, ivMax uint64) (*aesXTS, error) {
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
	x.ivMax = min(math.MaxUint64>>x.ivShift, ivMax)
	return x, nil
}

// iv returns the iv number of a sector: the sector number plus the offset, in units of 512 bytes,
// or of the transform's sectors with large sectors. Of plain64 the sum has 64 bits
// (crypt_iv_plain64_gen in drivers/md/dm-crypt.c), and of plain the number has 32 (crypt_iv_plain_gen).
func (x *aesXTS) iv(sector uint64) uint64 { return (sector + x.ivOffset) >> x.ivShift & x.ivMax }

// Encrypt implements Transfer.
func (x *aesXTS) Encrypt(buf []byte, sector uint64) {
	for len(buf) > 0 {
		n, iv := x.run(len(buf), sector)
		x.cipher.Encrypt(buf[:n], x.sectorSize, iv, x.ivStep)
		buf, sector = buf[n:], sector+uint64(n>>SectorShift)
	}
}

// Decrypt implements Transfer.
func (x *aesXTS) Decrypt(buf []byte, sector uint64) {
	for len(buf) > 0 {
		n, iv := x.run(len(buf), sector)
		x.cipher.Decrypt(buf[:n], x.sectorSize, iv, x.ivStep)
		buf, sector = buf[n:], sector+uint64(n>>SectorShift)
	}
}

// run returns the iv number of a sector, and how many of size bytes follow before the number
// starts again from the beginning.
func (x *aesXTS) run(size int, sector uint64) (n int, iv uint64) {
	iv = x.iv(sector)
	if further := (x.ivMax - iv) / x.ivStep; further < uint64(size/x.sectorSize) {
		size = int(further+1) * x.sectorSize
	}
	return size, iv
}

// Close implements Transfer.
func (x *aesXTS) Close() error {
	x.cipher.Wipe()
	x.schedule.Close()
	return nil
}
