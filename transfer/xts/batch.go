package xts

// batchSectors is how many sectors a kernel is given at a time. It encrypts
// their first tweaks together, at the cost of encrypting one: a block takes
// some 60 cycles to come out of the AES units, which can take in as many
// blocks meanwhile as a sector of 512 bytes has. The kernels rely on 8.
const batchSectors = 8

// batch is what a kernel works on in one call. It is a struct rather than
// arguments so that the assembler gets the offsets from the compiler
// (go_asm.h).
type batch struct {
	keys    *[ScheduleSize]byte
	rounds  int   // 10 or 14
	buf     *byte // of sectors*blocks*16 bytes, at any alignment
	sectors int   // 1 to batchSectors
	blocks  int   // of 16 bytes in a sector, at least 1
	iv      uint64
	step    uint64
}

// take points b at as many of buf's sectors as it can hold, and returns the
// rest of buf. The iv is advanced past the sectors that b held before.
func (b *batch) take(buf []byte, sectorSize int) []byte {
	b.iv += uint64(b.sectors) * b.step
	b.buf = &buf[0]
	b.blocks = sectorSize / blockSize
	b.sectors = min(batchSectors, len(buf)/sectorSize)
	return buf[b.sectors*sectorSize:]
}
