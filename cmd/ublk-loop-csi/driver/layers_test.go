package driver

import (
	"maps"
	"slices"
	"testing"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// A layer is needed if a record leads to it, directly or through stores above it.
func TestUnneeded(t *testing.T) {
	layers := []*pool.Layer{{ID: "a"}, {ID: "b", Parent: "a"}, {ID: "c", Parent: "b"}, {ID: "d", Parent: "a"}, {ID: "e"}, {ID: "f", Parent: "e"}}
	merged := []*pool.Layer{{ID: "a"}, {ID: "b", Parent: "a", Next: "n"}, {ID: "n"}, {ID: "m", Parent: "p", Into: "i"}, {ID: "i"}, {ID: "p"}}
	for needed, rest := range map[string][]string{"b": {"i", "m", "p"}, "m": {"a", "b", "n"}, "n": {"a", "b", "i", "m", "p"}} {
		if got := slices.Sorted(maps.Keys(unneeded(merged, map[string]bool{needed: true}))); !slices.Equal(got, rest) {
			t.Errorf("merged layers, needed %s: %q can go, want %q", needed, got, rest)
		}
	}
	for _, tt := range []struct{ needed, rest []string }{
		{nil, []string{"a", "b", "c", "d", "e", "f"}},
		{[]string{"", "gone"}, []string{"a", "b", "c", "d", "e", "f"}},
		{[]string{"c"}, []string{"d", "e", "f"}},
		{[]string{"b", "d"}, []string{"c", "e", "f"}},
		{[]string{"c", "d", "f"}, nil},
		{[]string{"a", "e"}, []string{"b", "c", "d", "f"}},
	} {
		needed := map[string]bool{}
		for _, id := range tt.needed {
			needed[id] = true
		}
		if got := slices.Sorted(maps.Keys(unneeded(layers, needed))); !slices.Equal(got, tt.rest) {
			t.Errorf("needed %q: %q can go, want %q", tt.needed, got, tt.rest)
		}
	}
}
