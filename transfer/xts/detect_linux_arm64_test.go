package xts

import (
	"encoding/binary"
	"os"
	"testing"
)

// ID_AA64ISAR0_EL1 reports the same as the auxiliary vector.
func TestDetectionAgreesWithTheKernel(t *testing.T) {
	auxv, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		t.Skipf("no kernel to ask: %v", err)
	}
	const atHWCAP, hwcapAES = 16, 1 << 3 // linux/auxvec.h, arch/arm64's asm/hwcap.h
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.LittleEndian.Uint64(auxv) != atHWCAP {
			continue
		}
		want := binary.LittleEndian.Uint64(auxv[8:])&hwcapAES != 0
		if got := missing(armv8); (got == "") != want {
			t.Errorf("armv8: lacks %q, AES in AT_HWCAP: %v", got, want)
		}
		return
	}
	t.Error("no AT_HWCAP in /proc/self/auxv")
}
