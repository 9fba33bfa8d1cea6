package loop

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// seedEnv names the variable with a seed, which repeats random operations.
const seedEnv = "UBLK_LOOP_SEED"

// seeded returns a source of random numbers for a test, and logs its seed.
func seeded(t testing.TB) *rand.PCG {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("repeat it with %s=%d", seedEnv, seed)
	return sourceOf(seed)
}

func sourceOf(seed uint64) *rand.PCG { return rand.NewPCG(seed, 0) }

// fill fills memory from a source. An emulated machine executes the multiplications of PCG much faster than the vectors
// of ChaCha8.
func fill(p []byte, source *rand.PCG) []byte {
	var word [8]byte
	for i := 0; i < len(p); i += len(word) {
		binary.LittleEndian.PutUint64(word[:], source.Uint64())
		copy(p[i:], word[:])
	}
	return p
}

// random fills memory with unique bytes.
func random(p []byte) []byte { return fill(p, sourceOf(rand.Uint64())) }

// firstDifference describes the first difference between two byte slices.
func firstDifference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("the first wrong byte is at offset %d: %#02x, want %#02x", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

// A seed always gives the same bytes and numbers.
func TestSeedRepeats(t *testing.T) {
	t.Setenv(seedEnv, "42")
	a, b := seeded(t), seeded(t)
	first, second := fill(make([]byte, 100), a), fill(make([]byte, 100), b)
	if string(first) != string(second) || rand.New(a).Uint64() != rand.New(b).Uint64() {
		t.Error("the same seed gives other bytes")
	}
	t.Setenv(seedEnv, "")
	first, second = fill(make([]byte, 100), seeded(t)), fill(make([]byte, 100), seeded(t))
	if string(first) == string(second) {
		t.Error("two tests without a seed get the same bytes")
	}
}

func TestFirstDifference(t *testing.T) {
	for _, tt := range []struct{ got, want, text string }{
		{"abc", "abd", "the first wrong byte is at offset 2: 0x63, want 0x64"},
		{"xbc", "abd", "the first wrong byte is at offset 0: 0x78, want 0x61"},
		{"ab", "abd", "2 bytes, want 3"},
	} {
		if got := firstDifference([]byte(tt.got), []byte(tt.want)); got != tt.text {
			t.Errorf("%q, want %q", got, tt.text)
		}
	}
}
