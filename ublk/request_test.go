package ublk

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Only reads and writes have a buffer.
func TestHasData(t *testing.T) {
	for op, want := range map[Op]bool{OpRead: true, OpWrite: true, OpFlush: false, OpDiscard: false, OpWriteZeroes: false, 17: false} {
		if got := op.HasData(); got != want {
			t.Errorf("%v has data: %v", op, got)
		}
	}
}

// The flags of a descriptor and their constants have the same bits. decode finds each flag, and
// takes none for the operation.
func TestDecodeSeesEachFlag(t *testing.T) {
	for bit := 8; bit < 32; bit++ {
		var req Request
		req.decode(&uapi.IODesc{OpFlags: 1<<bit | uapi.UBLK_IO_OP_WRITE_ZEROES, NrSectors: 8, StartSector: 1 << 40})
		if req.Op != OpWriteZeroes || req.Flags != 1<<bit {
			t.Errorf("bit %d: operation %v, flags %#x", bit, req.Op, req.Flags)
		}
		for name, flag := range map[string]struct {
			flag Flags
			bit  int
		}{"FUA": {FlagFUA, 13}, "NOUNMAP": {FlagNoUnmap, 15}, "NEED_REG_BUF": {flagNeedRegister, 17}} {
			if got, want := req.Flags&flag.flag != 0, bit == flag.bit; got != want {
				t.Errorf("bit %d: %s is %v, want %v", bit, name, got, want)
			}
		}
		if req.Bytes() != 4096 || req.Offset() != 1<<49 {
			t.Errorf("%d bytes at %d, want 4096 at %d", req.Bytes(), req.Offset(), uint64(1)<<49)
		}
	}
}
