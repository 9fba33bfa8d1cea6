package filelock

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

var (
	file = identity.File{Device: "8:1", Inode: 12, Birth: 5}
	disk = identity.File{IsDisk: true, Device: "8:0", Disk: identity.Disk{Sequence: 3}}
	// part is on disk, from sector 8 to 23.
	part = identity.File{IsDisk: true, Device: "8:1", Disk: identity.Disk{Sequence: 3, Start: 8, Size: 16}}
)

// want compares an error with the expected one, or with nil.
func want(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("error %v, want %v", err, want)
	}
}

// held locks a range until the test ends.
func held(t *testing.T, dir string, object identity.File, r Range, mode Mode) *Lock {
	t.Helper()
	l, err := Acquire(dir, object, r, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.drop)
	return l
}

// nothingIn checks that neither a lock nor the directory is left.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left are %v, error %v", left, err)
	}
}

func TestAcquire(t *testing.T) {
	later := file
	later.Birth++
	all := Range{}
	for name, tt := range map[string]struct {
		object identity.File
		r      Range
		mode   Mode
		second identity.File
		other  Range
		how    Mode
		want   error
	}{
		"two writers":                   {file, all, Exclusive, file, all, Exclusive, unix.EBUSY},
		"a reader beside a writer":      {file, all, Exclusive, file, all, Shared, unix.EBUSY},
		"a writer beside a reader":      {file, all, Shared, file, all, Exclusive, unix.EBUSY},
		"two readers":                   {file, all, Shared, file, all, Shared, nil},
		"the next file of that number":  {file, all, Exclusive, later, all, Exclusive, nil},
		"a range beside a range":        {file, Range{0, 4096}, Exclusive, file, Range{4096, 4096}, Exclusive, nil},
		"a range that begins in it":     {file, Range{0, 4097}, Exclusive, file, Range{4096, 512}, Exclusive, unix.EBUSY},
		"the rest of it":                {file, Range{0, 4096}, Exclusive, file, Range{4096, 0}, Exclusive, nil},
		"the last bytes of a rest":      {file, Range{4096, 0}, Exclusive, file, Range{1<<63 - 512, 511}, Exclusive, unix.EBUSY},
		"the disk of a partition":       {part, all, Exclusive, disk, all, Exclusive, unix.EBUSY},
		"the disk before the partition": {part, all, Exclusive, disk, Range{0, 4096}, Exclusive, nil},
		"the disk behind the partition": {part, all, Exclusive, disk, Range{24 * 512, 512}, Exclusive, nil},
		"the partition's last sector":   {part, all, Exclusive, disk, Range{23 * 512, 512}, Exclusive, unix.EBUSY},
		"the end of the partition only": {part, Range{512, 0}, Exclusive, disk, Range{8 * 512, 512}, Exclusive, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "locks")
			first := held(t, dir, tt.object, tt.r, tt.mode)
			second, err := Acquire(dir, tt.second, tt.other, tt.how)
			want(t, err, tt.want)
			if tt.want != nil {
				want(t, first.Release(), nil)
				if second, err = Acquire(dir, tt.second, tt.other, tt.how); err != nil {
					t.Fatalf("after the first is released: %v", err)
				}
				first = nil
			}
			want(t, second.Release(), nil)
			if first != nil {
				want(t, first.Release(), nil)
			}
			nothingIn(t, dir)
		})
	}
}

// registered returns a duplicate of the lock's descriptor, as the table of a ring has it.
func registered(t *testing.T, l *Lock) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(l.RingFD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ring := os.NewFile(uintptr(fd), "ring")
	t.Cleanup(func() { _ = ring.Close() })
	return ring
}

// A ring keeps the lock until its last operation has ended, even after the end of its
// process.
func TestRingKeepsLock(t *testing.T) {
	for name, end := range map[string]func(*Lock) error{
		"released": (*Lock).Release,
		"killed":   func(l *Lock) error { l.drop(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := held(t, dir, file, Range{}, Exclusive)
			ring := registered(t, l)
			want(t, end(l), nil)
			_, err := Acquire(dir, file, Range{}, Exclusive)
			want(t, err, unix.EBUSY)
			if err := ring.Close(); err != nil {
				t.Fatal(err)
			}
			held(t, dir, file, Range{}, Exclusive)
		})
	}
}

// A ring without running operations does not keep the lock after Idle.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	l := held(t, dir, file, Range{}, Exclusive)
	registered(t, l)
	l.Idle()
	_, err := Acquire(dir, file, Range{}, Exclusive)
	want(t, err, unix.EBUSY)
	want(t, l.Release(), nil)
	held(t, dir, file, Range{}, Exclusive)
}

// While one program replaces another, no other server can get the lock. The new program
// has the lock when the rings of the old one have ended.
func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	l := held(t, dir, file, Range{}, Exclusive)
	ring := registered(t, l)
	passed := l.Holder()
	l.Disown() // the exec has the same effect
	_, err := Acquire(dir, file, Range{}, Exclusive)
	want(t, err, unix.EBUSY)
	_, err = Adopt(dir, file, Range{}, Exclusive, passed)
	want(t, err, unix.EBUSY)
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(dir, file, Range{}, Exclusive)
	want(t, err, unix.EBUSY)
	_, err = Adopt(dir, disk, Range{}, Exclusive, passed)
	want(t, err, unix.ESTALE)
	next, err := Adopt(dir, file, Range{}, Exclusive, passed)
	if err != nil {
		t.Fatal(err)
	}
	next.Disown()
	_, err = Acquire(dir, file, Range{}, Exclusive)
	want(t, err, unix.EBUSY)
	if next, err = Adopt(dir, file, Range{}, Exclusive, passed); err != nil {
		t.Fatal(err)
	}
	want(t, next.Release(), nil)
	held(t, dir, file, Range{}, Exclusive)
}

// A lock has a neighbour if another part is locked in a mode that excludes its own.
func TestHasNeighbours(t *testing.T) {
	for name, tt := range map[string]struct {
		mode, other Mode
		want        bool
	}{
		"two writers":              {Exclusive, Exclusive, true},
		"a writer beside a reader": {Exclusive, Shared, true},
		"a reader beside a writer": {Shared, Exclusive, true},
		"two readers":              {Shared, Shared, false},
	} {
		dir := t.TempDir()
		l := held(t, dir, file, Range{0, 4096}, tt.mode)
		if got, err := l.HasNeighbours(); err != nil || got {
			t.Errorf("%s: %v before the other, error %v", name, got, err)
		}
		held(t, dir, file, Range{8192, 0}, tt.other)
		if got, err := l.HasNeighbours(); err != nil || got != tt.want {
			t.Errorf("%s: %v, error %v, want %v", name, got, err, tt.want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b Range
		want bool
	}{
		{Range{}, Range{}, true},
		{Range{0, 512}, Range{512, 512}, false},
		{Range{0, 513}, Range{512, 512}, true},
		{Range{0, 0}, Range{512, 512}, true},
		{Range{1024, 0}, Range{512, 512}, false},
		{Range{1023, 0}, Range{512, 512}, true},
	} {
		if tt.a.Overlaps(tt.b) != tt.want || tt.b.Overlaps(tt.a) != tt.want {
			t.Errorf("%+v and %+v: not %v", tt.a, tt.b, tt.want)
		}
	}
}

// Parts of two objects overlap as their locks do: a partition is a part of its disk.
func TestOverlap(t *testing.T) {
	part := func(start, size uint64) identity.File {
		return identity.File{IsDisk: true, Device: "8:1", Disk: identity.Disk{Sequence: 7, Start: start, Size: size}}
	}
	whole := identity.File{IsDisk: true, Device: "8:0", Disk: identity.Disk{Sequence: 7}}
	again := file
	again.Birth++
	for _, tt := range []struct {
		a, b     identity.File
		ofA, ofB Range
		want     bool
	}{
		{a: file, b: file, want: true},
		{a: file, b: file, ofA: Range{0, 512}, ofB: Range{512, 512}},
		{a: file, b: file, ofA: Range{0, 512}, ofB: Range{511, 512}, want: true},
		{a: file, b: again},
		{a: file, b: whole},
		{a: whole, b: part(8, 8), want: true},
		{a: part(0, 8), b: part(8, 8)},
		{a: whole, b: part(8, 8), ofA: Range{0, 4096}},
		{a: whole, b: part(8, 8), ofA: Range{0, 4608}, ofB: Range{0, 512}, want: true},
		{a: whole, b: part(8, 8), ofA: Range{0, 4608}, ofB: Range{512, 512}},
	} {
		if Overlap(tt.a, tt.ofA, tt.b, tt.ofB) != tt.want || Overlap(tt.b, tt.ofB, tt.a, tt.ofA) != tt.want {
			t.Errorf("%+v is not %v", tt, tt.want)
		}
	}
}

// The lock of a range that the object does not have covers nothing of other objects, nor the locks of rings.
func TestSectorsOfWrongRanges(t *testing.T) {
	part := identity.File{IsDisk: true, Device: "8:1", Disk: identity.Disk{Sequence: 7, Start: 8, Size: 8}}
	for _, r := range []Range{
		{Offset: 4096},
		{Offset: 6000, Length: 512},
		{Offset: 1 << 62, Length: 512},
		{Offset: 1 << 63},
		{Offset: math.MaxUint64, Length: math.MaxUint64},
		{Offset: 0, Length: math.MaxUint64},
		{Offset: math.MaxUint64},
	} {
		if at := sectorsOf(part, r); at.start < 8 || at.length < 1 || at.start+at.length > 16 {
			t.Errorf("%+v of a partition: %+v", r, at)
		}
		if at := sectorsOf(file, r); at.start < 0 || at.length < 1 || at.start+at.length > objectSectors {
			t.Errorf("%+v of a file: %+v", r, at)
		}
	}
}

// Only root can open the files of locks.
func TestOnlyOwnerOpensLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	l := held(t, dir, file, Range{}, Exclusive)
	for path, mode := range map[string]os.FileMode{dir: os.ModeDir | 0o700, filepath.Join(dir, l.name): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, error %v", path, info.Mode(), err)
		}
	}
}

// Many processes lock and unlock at the same time: no process removes a file with a lock,
// and no file is left.
func TestAcquireAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	const readers, rounds = 4, 300
	done := make(chan error)
	for range readers {
		go func() { done <- comeAndGo(dir, rounds) }() // until its rounds are over; received below
	}
	for range readers {
		want(t, <-done, nil)
	}
	nothingIn(t, dir)
}

func comeAndGo(dir string, rounds int) error {
	for range rounds {
		l, err := Acquire(dir, file, Range{}, Shared)
		if err != nil {
			return err
		}
		if err := l.isFor(l.holder); err != nil {
			return err
		}
		if err := l.Release(); err != nil {
			return err
		}
	}
	return nil
}
