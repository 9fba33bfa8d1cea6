package xts

// batchSectors is the maximum number of sectors in one call of a kernel. The
// kernel encrypts their first tweaks together, in the time of one. A block
// takes about 60 cycles in the AES units, which in that time can accept as many
// blocks as a sector of 512 bytes has. The kernels rely on 8.
const batchSectors = 8

// batch is the input of one call of a kernel. It is a struct instead of
// arguments, so that the assembler gets the offsets from the compiler
// (go_asm.h).
type batch struct {
	keys    *[ScheduleSize]byte
	rounds  int   // 10 or 14
	buf     *byte // sectors*blocks*16 bytes, at any alignment
	sectors int   // 1 to batchSectors
	blocks  int   // 16-byte blocks in a sector, at least 1
	iv      uint64
	step    uint64
}

// take sets b to as many sectors at the start of buf as it can hold, and
// returns the rest of buf. It advances the iv past the sectors that b held
// before.
func (b *batch) take(buf []byte, sectorSize int) []byte {
	b.iv += uint64(b.sectors) * b.step
	b.buf = &buf[0]
	b.blocks = sectorSize / blockSize
	b.sectors = min(batchSectors, len(buf)/sectorSize)
	return buf[b.sectors*sectorSize:]
}
