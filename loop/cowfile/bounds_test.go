package cowfile

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// sparseStore makes a store of 8 TiB with areas that repeat one record.
func sparseStore(t *testing.T, label *snapshot.Label, chunk uint32, areas uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(8 << 40); err != nil {
		t.Skipf("a file of 8 TiB: %v", err)
	}
	l := layoutOf(t, int(chunk))
	if err := snapshot.FormatLabelled(f, l, label); err != nil {
		t.Fatal(err)
	}
	area := make([]byte, chunk)
	for i := 8; i < len(area); i += 16 {
		area[i] = 2 // chunk 0 is in chunk 2
	}
	for i := range areas {
		write(t, f, area, l.Offset(l.Area(i)))
	}
	return path
}

// allocatedBy returns the number of bytes that a function allocates, freed or not.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// However large a store is, and whatever its records are, it is described with the memory for eight
// areas. At most one record is read for each chunk of the origin.
func TestInspectIsBounded(t *testing.T) {
	label := func(size uint64) *snapshot.Label { return &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: size} }
	for _, c := range []struct {
		name   string
		label  *snapshot.Label
		chunk  uint32
		areas  uint64
		want   error
		chunks uint64
	}{
		{"empty", label(1 << 20), 4096, 0, nil, 0},
		{"more records than chunks", label(1 << 20), 4096, 4, snapshot.ErrDuplicateOld, 0},
		{"large chunks", label(1 << 40), 1 << 20, 12, nil, 12 * 65536},
		{"huge origin", label(1 << 62), 4096, 4, snapshot.ErrTooLarge, 0},
		{"no label", nil, 4096, 4, nil, 4 * 256},
	} {
		path := sparseStore(t, c.label, c.chunk, c.areas)
		var info *Info
		var err error
		used := allocatedBy(func() { info, err = Inspect(path) })
		if !errors.Is(err, c.want) || err == nil && info.Chunks != c.chunks {
			t.Errorf("%s: %+v, error %v, want %v", c.name, info, err, c.want)
		}
		var record *snapshot.RecordError
		if errors.Is(c.want, snapshot.ErrDuplicateOld) && (!errors.As(err, &record) || record.Area != 1 || record.Record != 0) {
			t.Errorf("%s: record 257 is not the one that is refused: %v", c.name, err)
		}
		t.Logf("%s: %d KiB", c.name, used>>10)
		if used > 12<<20 {
			t.Errorf("%s: %d bytes are allocated", c.name, used)
		}
	}
}

// The index of a merge is bounded as that of a device.
func TestMergeIndexIsBounded(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	l := layoutOf(t, 4096)
	origin := info.Totalram * uint64(info.Unit) / 4 / 4 * 4096 // its index takes a quarter of the memory
	if _, err := l.OriginChunks(origin + 4096); err != nil {
		origin = 1 << 42 // a machine with much memory
	}
	path := sparseStore(t, nil, 4096, 0)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	used := allocatedBy(func() { _, err = newMerging(f, f, l, 8<<40, origin+4096) })
	if origin != 1<<42 && (!errors.Is(err, unix.ENOMEM) || used > 1<<20) {
		t.Errorf("error %v, %d bytes are allocated", err, used)
	}
}
