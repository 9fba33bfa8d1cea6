package backing

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The number of calls for a file does not grow with the size of a sparse file: the
// largest file takes as many calls as a file of a TiB.
func TestDropCacheOfSparseFile(t *testing.T) {
	fd, err := unix.MemfdCreate("sparse", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "sparse")
	defer func() { _ = file.Close() }()
	for size, want := range map[uint64]int{
		1: 1, 1 << 30: 1, 1<<30 + 1: 2, 1 << 40: 1024, 1<<40 + 1: 1024, 8191 << 50: 1024, 1<<63 - 1: 1024,
	} {
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			t.Fatal(err)
		}
		b, calls := Backing{File: file, Direct: true, Size: size}, 0
		b.DropCache(func() bool { calls++; return calls > 2*dropSteps })()
		if calls != want {
			t.Errorf("%d bytes: %d calls, want %d", size, calls, want)
		}
	}
}

// The cache of a file that was closed meanwhile is left alone, because another file can have its descriptor.
func TestDropCacheOfClosedFile(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	b, calls := Backing{File: file, Direct: true, Size: dropSteps * dropStep}, 0
	drop := b.DropCache(func() bool { calls++; return false })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	drop()
	if calls > 1 {
		t.Errorf("%d calls for a closed file", calls)
	}
}

// The parts cover the whole file, and the last part has no end, because the rest of the
// file has cached pages, too.
func TestDropParts(t *testing.T) {
	for _, size := range []uint64{1, 1 << 30, 1<<30 + 1, 3<<30 + 5, 1 << 40, 1<<40 + 1, 8191 << 50, 1<<63 - 1} {
		next, open := int64(0), false
		for at, length := range dropParts(size) {
			if open || at != next || uint64(at) >= size || length < 0 {
				t.Fatalf("%d bytes: %d bytes at %d, want them at %d", size, length, at, next)
			}
			next, open = at+length, length == 0
		}
		if !open {
			t.Errorf("%d bytes: the last part ends at %d", size, next)
		}
	}
}
