package xts

// implementation is a way to compute XTS-AES.
type implementation int

const (
	generic    implementation = iota // golang.org/x/crypto/xts
	aesni                            // x86 AES-NI, SSE registers
	vaesAVX2                         // x86 VAES, ymm registers
	vaesAVX512                       // x86 VAES, zmm registers
	armv8                            // ARMv8 Cryptographic Extension
)

// best is the fastest implementation that this machine has.
var best = detect()

// detect finds it. They are in ascending order of speed.
func detect() implementation {
	for i := armv8; i > generic; i-- {
		if missing(i) == "" {
			return i
		}
	}
	return generic
}

// String returns the name that [Implementation] documents.
func (i implementation) String() string {
	return [...]string{"generic", "aesni", "vaes-avx2", "vaes-avx512", "armv8"}[i]
}

// Implementation returns what [New] uses on this machine: "vaes-avx512",
// "vaes-avx2", "aesni", "armv8", or "generic" where the processor has no AES
// instructions that this package knows.
func Implementation() string {
	return best.String()
}
