package xts

import "strings"

// cpuid executes CPUID (Intel SDM volume 2A).
func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// xgetbv reads XCR0. It faults unless CPUID.1:ECX.OSXSAVE is set.
func xgetbv() (low uint32)

// feature is a processor feature that an implementation needs.
type feature struct {
	name  string
	there bool
}

// These bits of XCR0 say which state the operating system saves (Intel SDM
// volume 1, 13.3).
const (
	xcr0YMM = 1<<1 | 1<<2                  // SSE, AVX
	xcr0ZMM = xcr0YMM | 1<<5 | 1<<6 | 1<<7 // opmask, ZMM_Hi256, Hi16_ZMM
)

// missing returns the name of a feature that an implementation needs and this
// processor or its operating system lacks, or "" if there is none.
func missing(i implementation) string {
	var needs []feature
	switch i {
	case generic:
		return ""
	case aesni:
		needs = leaf1().aesni()
	case vaesAVX2:
		needs = append(leaf7().vaesAVX2(), feature{"ymm state in XCR0", osSaves(xcr0YMM)})
	case vaesAVX512:
		needs = append(leaf7().vaesAVX512(), feature{"opmask and zmm state in XCR0", osSaves(xcr0ZMM)})
	default:
		return "another architecture"
	}
	var lacks []string
	for _, f := range needs {
		if !f.there {
			lacks = append(lacks, f.name)
		}
	}
	return strings.Join(lacks, ", ")
}

// flags are the feature flags of leaf 1.
type flags struct{ ecx uint32 }

func leaf1() flags {
	_, _, ecx, _ := cpuid(1, 0)
	return flags{ecx}
}

func (f flags) aesni() []feature { return []feature{{"AES-NI", f.ecx>>25&1 == 1}} }

// xgetbv reports whether the processor has XGETBV, and the operating system allows it: the
// flags OSXSAVE and AVX.
func (f flags) xgetbv() bool { return f.ecx>>27&1 == 1 && f.ecx>>28&1 == 1 }

// features are the structured extended feature flags of leaf 7.
type features struct{ ebx, ecx uint32 }

func (f features) vaesAVX2() []feature {
	return []feature{
		{"AVX2", f.ebx>>5&1 == 1},
		{"VAES", f.ecx>>9&1 == 1},
		{"VPCLMULQDQ", f.ecx>>10&1 == 1},
	}
}

func (f features) vaesAVX512() []feature {
	return append(f.vaesAVX2(), feature{"AVX512F", f.ebx>>16&1 == 1}, feature{"AVX512BW", f.ebx>>30&1 == 1})
}

// leaf7 returns the structured extended feature flags, or zero if the processor
// has none: CPUID answers a leaf above the highest with the data of another
// leaf.
func leaf7() features {
	if highest, _, _, _ := cpuid(0, 0); highest < 7 {
		return features{}
	}
	_, ebx, ecx, _ := cpuid(7, 0)
	return features{ebx, ecx}
}

// osSaves reports whether the operating system saves all of the given state.
// Instructions that use state which is not saved fault.
func osSaves(state uint32) bool { return leaf1().saves(state, xgetbv) }

// saves is osSaves for a processor with these flags, where read returns XCR0.
func (f flags) saves(state uint32, read func() uint32) bool {
	return f.xgetbv() && read()&state == state
}
