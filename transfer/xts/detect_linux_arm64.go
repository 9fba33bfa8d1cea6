package xts

// instructionSet0 reads ID_AA64ISAR0_EL1, a register that only the kernel can
// read. Since 4.11, Linux emulates the read for a process, and returns the
// features that all cores have
// (Documentation/arch/arm64/cpu-feature-registers.rst). The auxiliary vector
// contains the same features, but needs /proc and a dumpable process.
func instructionSet0() uint64

// missing returns the name of a feature that an implementation needs and this
// processor lacks, or "" if there is none.
func missing(i implementation) string {
	switch aes := instructionSet0() >> 4 & 0xf; { // Arm ARM, ID_AA64ISAR0_EL1: 1 is AESE and similar, 2 is these and PMULL
	case i == generic:
		return ""
	case i != armv8:
		return "another architecture"
	case aes == 0:
		return "ID_AA64ISAR0_EL1.AES"
	}
	return ""
}
