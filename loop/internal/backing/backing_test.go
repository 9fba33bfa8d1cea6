package backing

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// openFor opens a file as a backing for a test.
func openFor(t testing.TB, path string, o Options) (*Backing, error) {
	t.Helper()
	o.LockDir = locksOf(path)
	b, err := Open(openPath(t, path), &o)
	if err == nil {
		t.Cleanup(func() { _ = b.Close() })
	}
	return b, err
}

// locksOf returns a directory for the locks of what is at a path.
func locksOf(path string) string { return path + ".locks" }

// wantHint checks an error's errno, path and hint. An empty hint means that there must be
// none.
func wantHint(t testing.TB, err, want error, path, wanted string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
		return
	}
	if !strings.Contains(err.Error(), path) {
		t.Errorf("error %q lacks the path %s", err, path)
	}
	var h *hint.Error
	switch {
	case errors.As(err, &h) != (wanted != ""):
		t.Errorf("error %q: hint %v, want %q", err, h, wanted)
	case h != nil && !strings.Contains(h.Hint, wanted):
		t.Errorf("hint %q lacks %q", h.Hint, wanted)
	case h != nil && strings.Contains(err.Error(), h.Hint):
		t.Errorf("error %q has the hint in it", err)
	}
}

func TestBackingIsTheFile(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	b, err := openFor(t, path, Options{Offset: 4096, SizeLimit: 8192})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if b.Path != path || b.IsDisk || b.Dev != st.Dev || b.Ino != st.Ino || b.ReadOnly {
		t.Errorf("another file: %+v", b)
	}
	if b.Offset != 4096 || b.Size != 8192 || b.SectorSize != 512 {
		t.Errorf("another part of it: offset %d, size %d, sector %d", b.Offset, b.Size, b.SectorSize)
	}
	flags, err := unix.FcntlInt(uintptr(b.FD), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	if flags&unix.O_ACCMODE != unix.O_RDWR || (flags&unix.O_DIRECT != 0) != b.Direct {
		t.Errorf("open flags %#x, direct %v", flags, b.Direct)
	}
	if fdFlags, err := unix.FcntlInt(uintptr(b.FD), unix.F_GETFD, 0); err != nil || fdFlags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec: %#x, %v", fdFlags, err)
	}
}

func TestBackingReadOnly(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	b, err := openFor(t, path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(b.FD, []byte("x"), 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("write to it: %v, want EBADF", err)
	}
	if b.punchHole {
		t.Error("a read-only file takes holes")
	}
}

// These files cannot be written to, not even by root: a constant sysctl, and the running
// program.
func TestBackingUnwritable(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/proc/sys/kernel/ostype": unix.EACCES, program: unix.ETXTBSY} {
		_, err := openFor(t, path, Options{})
		wantHint(t, err, want, path, "{read_only}")
	}
}

// A file in memory that is sealed against writes can only be read. Other seals do not matter.
func TestBackingSealed(t *testing.T) {
	for seals, sealed := range map[int]bool{unix.F_SEAL_WRITE: true, unix.F_SEAL_FUTURE_WRITE: true, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW: false} {
		fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "memfd")
		defer file.Close()
		if err := file.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		b, err := Open(file, &Options{LockDir: t.TempDir()})
		if sealed {
			wantHint(t, err, unix.EPERM, "sealed against writes", "{read_only}")
			b, err = Open(file, &Options{ReadOnly: true, LockDir: t.TempDir()})
		}
		if err != nil {
			t.Fatalf("seals %d: %v", seals, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// After an error no file stays open.
func TestBackingErrorClosesFile(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	for _, o := range []Options{{Offset: 1}, {SectorSize: 513}, {DirectIO: "perhaps"}} {
		if _, err := openFor(t, path, o); !errors.Is(err, unix.EINVAL) {
			t.Fatalf("%+v: error %v, want EINVAL", o, err)
		}
	}
	b, err := openFor(t, path, Options{}) // a file that stayed open would hold its lock
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Errorf("close, and again: %v", err)
	}
}

// memoryFile returns a file in memory, which takes holes.
func memoryFile(t *testing.T, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// The probe for holes frees no space behind the end of the file, where another program may write
// at the same time.
func TestBackingPunchHoleKeepsSpace(t *testing.T) {
	f := memoryFile(t, 1536)
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	b, err := Open(f, &Options{LockDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks != 1<<20/512 || !b.punchHole {
		t.Errorf("error %v, %d of %d blocks are left, holes %v", err, st.Blocks, 1<<20/512, b.punchHole)
	}
}

// A file of any size takes holes, unless it ends close to the largest offset.
func TestProbePunchHoleSizes(t *testing.T) {
	for size, want := range map[int64]error{
		0: nil, 1 << 40: nil, 1 << 62: nil, 3 << 61: nil, math.MaxInt64 - 4<<30: nil,
		math.MaxInt64 - 1<<20: unix.EFBIG, math.MaxInt64: unix.EFBIG,
	} {
		f := memoryFile(t, size)
		b := &Backing{FD: int(f.Fd()), blockSize: 4096}
		if err := b.probePunchHole(); !errors.Is(err, want) {
			t.Errorf("a file of %d bytes: error %v, want %v", size, err, want)
		}
	}
}

// The probe for holes does not change the file, and its result is correct.
func TestBackingPunchHole(t *testing.T) {
	path := newFile(t, "file", 0)
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1536)), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openFor(t, path, Options{DirectIO: SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != strings.Repeat("x", 1536) {
		t.Errorf("the file holds %q (%v)", data, err)
	}
	if err := unix.Fallocate(b.FD, PunchHole, 0, 512); (err == nil) != b.punchHole {
		t.Errorf("punchHole is %v, a hole says %v", b.punchHole, err)
	}
}
