package xts

// instructionSet0 reads ID_AA64ISAR0_EL1, which is the kernel's to read. Linux
// does it for a process that tries since 4.11, and answers with what all cores
// have (Documentation/arch/arm64/cpu-feature-registers.rst). The auxiliary
// vector says the same, but needs /proc and a process that may be dumped.
func instructionSet0() uint64

// missing returns what this processor lacks for an implementation, and "" if
// there is nothing.
func missing(i implementation) string {
	switch aes := instructionSet0() >> 4 & 0xf; { // Arm ARM, ID_AA64ISAR0_EL1: 1 is AESE and the like, 2 PMULL as well
	case i == generic:
		return ""
	case i != armv8:
		return "another architecture"
	case aes == 0:
		return "ID_AA64ISAR0_EL1.AES"
	}
	return ""
}
