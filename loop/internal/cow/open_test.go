package cow

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// Only a store that is written to has memory for records that are not saved, of which a chain of layers would need much.
func TestMemoryOfUnwrittenStore(t *testing.T) {
	s, file := openSmall(t)
	defer s.Close()
	if n := cap(s.unsaved); n != maxUnsaved {
		t.Errorf("a store has room for %d records, want %d", n, maxUnsaved)
	}
	for name, o := range map[string]Options{
		"read-only":              {Format: table.Persistent, ReadOnly: true},
		"of another process":     {Format: table.Persistent, Described: true},
		"that is not persistent": {Format: table.Transient, ChunkBytes: chunk},
	} {
		o.OriginSize, o.Block = 64*chunk, 512
		s, err := Open(file, &o)
		if err != nil {
			t.Fatal(err)
		}
		if n := cap(s.unsaved); n != 0 {
			t.Errorf("a store %s has room for %d records", name, n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
