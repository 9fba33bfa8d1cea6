package xts

import "strings"

// cpuid executes CPUID (Intel SDM volume 2A).
func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// feature is something of the processor that an implementation needs.
type feature struct {
	name  string
	there bool
}

// missing returns what this processor, or its operating system, lacks for an
// implementation, and "" if there is nothing.
func missing(i implementation) string {
	var needs []feature
	switch i {
	case generic:
		return ""
	case aesni:
		needs = aesniFeatures()
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

func aesniFeatures() []feature {
	_, _, ecx, _ := cpuid(1, 0)
	return []feature{{"AES-NI", ecx>>25&1 == 1}}
}
