package transfer

import (
	"slices"
	"testing"
)

// Each name is a transform's, and the longest key that callers read is one that a
// transform takes.
func TestNames(t *testing.T) {
	longest := false
	for _, name := range Names() {
		if name == None {
			continue
		}
		for _, n := range []int{32, 64, MaxKeyBytes} {
			key, err := NewSecret(n)
			if err != nil {
				t.Fatal(err)
			}
			for i := range key.Bytes() {
				key.Bytes()[i] = byte(i)
			}
			tr, err := New(name, key, Options{SectorSize: 512})
			if err != nil {
				if n < MaxKeyBytes {
					t.Errorf("%s with a key of %d bytes: %v", name, n, err)
				}
				continue
			}
			longest = longest || n == MaxKeyBytes
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if !longest || !slices.Contains(Names(), None) {
		t.Errorf("the longest key is taken: %v; names %q", longest, Names())
	}
}
