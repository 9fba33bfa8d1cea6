package pages

import "testing"

// A slice shares the memory that it is made of, and is never longer.
func TestSlice(t *testing.T) {
	mem, err := Map(Size[uint64](3))
	if err != nil {
		t.Fatal(err)
	}
	list := Slice[uint64](mem, 3)
	list[2] = 1
	if len(mem) != 24 || len(list) != 3 || mem[16]+mem[23] != 1 {
		t.Errorf("%d elements of %d bytes, the last one %v", len(list), len(mem), mem[16:])
	}
	defer func() {
		if recover() == nil {
			t.Error("three elements in shorter memory")
		}
	}()
	Slice[uint64](mem[:23], 3)
}
