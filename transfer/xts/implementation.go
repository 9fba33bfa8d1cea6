package xts

import "sync"

// implementation is a way to compute XTS-AES.
type implementation int

const (
	generic    implementation = iota // golang.org/x/crypto/xts
	aesni                            // x86 AES-NI, SSE registers
	vaesAVX2                         // x86 VAES, ymm registers
	vaesAVX512                       // x86 VAES, zmm registers
	armv8                            // ARMv8 Cryptographic Extension
)

// best returns the fastest implementation for this machine. Most processes do not need it, and in a
// virtual machine a look at the processor may take 30 µs.
var best = sync.OnceValue(detect)

// detect returns the value of best. The implementations are in ascending order
// of speed.
func detect() implementation {
	for i := armv8; i > generic; i-- {
		if missing(i) == "" {
			return i
		}
	}
	return generic
}

// String returns the name that [Implementation] returns.
func (i implementation) String() string {
	return [...]string{"generic", "aesni", "vaes-avx2", "vaes-avx512", "armv8"}[i]
}

// Implementation returns the implementation that [New] uses on this machine:
// "vaes-avx512", "vaes-avx2", "aesni", "armv8", or "generic" if the processor
// has no AES instructions that this package supports.
func Implementation() string {
	return best().String()
}
