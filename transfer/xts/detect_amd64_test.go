package xts

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// CPUID and XCR0 report the same features as the kernel, which lists a feature
// only if it saves the feature's state.
func TestDetectionAgreesWithTheKernel(t *testing.T) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skipf("no kernel to ask: %v", err)
	}
	if name := cpuinfo(text, "model name"); name != brand() {
		t.Skipf("/proc/cpuinfo is about a %q and CPUID about a %q, as in qemu-x86_64", name, brand())
	}
	flags := strings.Fields(cpuinfo(text, "flags"))
	for impl, needs := range map[implementation][]string{
		aesni:      {"aes"},
		vaesAVX2:   {"avx2", "vaes", "vpclmulqdq"},
		vaesAVX512: {"avx2", "avx512f", "avx512bw", "vaes", "vpclmulqdq"},
	} {
		lacks := slices.DeleteFunc(needs, func(flag string) bool { return slices.Contains(flags, flag) })
		if got := missing(impl); (got == "") != (len(lacks) == 0) {
			t.Errorf("%v: lacks %q, by /proc/cpuinfo %q", impl, got, lacks)
		}
	}
}

// Each flag is read from its own bit (Intel SDM volume 2A, CPUID), whatever this processor has.
func TestFeatureBits(t *testing.T) {
	bits := map[string]features{
		"AVX2": {ebx: 1 << 5}, "AVX512F": {ebx: 1 << 16}, "AVX512BW": {ebx: 1 << 30},
		"VAES": {ecx: 1 << 9}, "VPCLMULQDQ": {ecx: 1 << 10},
	}
	for bit := range 32 {
		for _, f := range []features{{ebx: 1 << bit}, {ecx: 1 << bit}} {
			for _, got := range f.vaesAVX512() {
				if want := bits[got.name] == f; got.there != want {
					t.Errorf("%+v: %s is %v", f, got.name, got.there)
				}
			}
		}
	}
	for bit := range 32 {
		if got := (flags{1 << bit}).aesni(); len(got) != 1 || got[0].name != "AES-NI" || got[0].there != (bit == 25) {
			t.Errorf("bit %d of leaf 1: %v", bit, got)
		}
	}
	var names []string // in the order in which an error lists them
	for _, f := range (features{}).vaesAVX512() {
		names = append(names, f.name)
	}
	if want := []string{"AVX2", "VAES", "VPCLMULQDQ", "AVX512F", "AVX512BW"}; !slices.Equal(names, want) {
		t.Errorf("the features %q are needed, not %q", names, want)
	}
}

// XCR0 is read only with OSXSAVE and AVX, because the read faults without them. It must have
// each bit of the state.
func TestStateThatIsSaved(t *testing.T) {
	const osxsave, avx = 1 << 27, 1 << 28
	for ecx, has := range map[uint32]bool{osxsave | avx: true, ^uint32(0): true, ^uint32(osxsave): false, ^uint32(avx): false, 0: false} {
		for _, state := range []uint32{xcr0YMM, xcr0ZMM} {
			for _, xcr0 := range []uint32{0, 1, xcr0YMM, xcr0ZMM, xcr0ZMM &^ (1 << 7), ^uint32(0)} {
				read := false
				got := flags{ecx}.saves(state, func() uint32 { read = true; return xcr0 })
				if read != has || got != (has && xcr0&state == state) {
					t.Errorf("flags %#x, XCR0 %#x, state %#x: read %v, saved %v", ecx, xcr0, state, read, got)
				}
			}
		}
	}
}

// cpuinfo returns the value of a name for the first processor.
func cpuinfo(text []byte, name string) string {
	line := regexp.MustCompile(`(?m)^` + name + `\s*:(.*)$`).FindSubmatch(text)
	if line == nil {
		return ""
	}
	return strings.TrimSpace(string(line[1]))
}

// brand returns the processor's name from CPUID.
func brand() string {
	var name []byte
	for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ {
		eax, ebx, ecx, edx := cpuid(leaf, 0)
		for _, register := range []uint32{eax, ebx, ecx, edx} {
			name = binary.LittleEndian.AppendUint32(name, register)
		}
	}
	return strings.TrimSpace(string(bytes.TrimRight(name, "\x00")))
}
