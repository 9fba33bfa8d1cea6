package backing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// On any file system, on gives direct I/O or an error with a hint, auto gives direct I/O
// if on is possible, and off gives buffered I/O.
func TestDirectIO(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	for _, sector := range []uint32{512, 1024, 2048, 4096} {
		direct := map[Switch]bool{}
		for _, want := range []Switch{"", SwitchAuto, SwitchOn, SwitchOff} {
			b, err := openFor(t, path, Options{DirectIO: want, SectorSize: sector})
			if err != nil {
				if want != SwitchOn {
					t.Fatalf("%q, sectors of %d: %v", want, sector, err)
				}
				wantHint(t, err, unix.EINVAL, path, "{direct_io=auto}")
				continue
			}
			direct[want] = b.Direct
			if got := hasDirectFlag(t, b.FD); got != b.Direct {
				t.Errorf("%q, sectors of %d: O_DIRECT %v, direct %v", want, sector, got, b.Direct)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if direct[""] != direct[SwitchOn] || direct[SwitchAuto] != direct[SwitchOn] || direct[SwitchOff] {
			t.Errorf("sectors of %d: direct is %v", sector, direct)
		}
	}
}

func hasDirectFlag(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_DIRECT != 0
}

// tmpfs accepts O_DIRECT (Linux 6.6) without doing direct I/O.
func TestDirectIOMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "ublk-loop-test")
	if err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skipf("/dev/shm is no tmpfs: type %#x, %v", st.Type, err)
	}
	path := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
		t.Fatal(err)
	}
	b, err := openFor(t, path, Options{SectorSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if b.Direct || hasDirectFlag(t, b.FD) {
		t.Error("auto is direct")
	}
	if !b.punchHole {
		t.Error("tmpfs takes no holes")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openFor(t, path, Options{SectorSize: 4096, DirectIO: SwitchOn})
	wantHint(t, err, unix.EINVAL, path, "{direct_io=auto}")
}

// A file without direct I/O cannot be switched to it.
func TestSetDirectRefused(t *testing.T) {
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := &Backing{FD: int(f.Fd())}
	if err := b.setDirect(true); !errors.Is(err, unix.EINVAL) {
		t.Errorf("error %v, want EINVAL", err)
	}
	if err := b.setDirect(false); err != nil {
		t.Error(err)
	}
}

// Both the first and the second sector must be readable, but no sector beyond the
// device's end. A sector that ends beyond the largest offset is refused like direct I/O
// with a wrong alignment.
func TestReadSectors(t *testing.T) {
	b, err := openFor(t, newFile(t, "file", 4096), Options{DirectIO: SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	b.SectorSize = 512
	const end = uint64(1) << 63
	for _, tt := range []struct {
		what         string
		offset, size uint64
		want         error
	}{
		{"all can be read", 0, 4096, nil},
		{"the third cannot", end - 1536, 4096, nil},
		{"the second cannot", end - 1024, 4096, unix.EINVAL},
		{"the second cannot, and is not the device's", end - 1024, 512, nil},
		{"the first cannot", end - 512, 512, unix.EINVAL},
	} {
		b.Offset, b.Size = tt.offset, tt.size
		if err := b.readSectors(); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.what, err, tt.want)
		}
	}
}

// The first two sectors are read, and not only asked for: some file systems look at the
// alignment only when they transfer data.
func TestReadSectorsTransfersData(t *testing.T) {
	b, err := openFor(t, newFile(t, "file", 16384), Options{DirectIO: SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	b.SectorSize = 4096
	runtime.LockOSThread() // the kernel counts bytes by thread
	defer runtime.UnlockOSThread()
	before := bytesRead(t)
	own := bytesRead(t) - before // by bytesRead itself
	if err := b.readSectors(); err != nil {
		t.Fatal(err)
	}
	if n := bytesRead(t) - before - own; n < 2*4096 || n >= 3*4096 {
		t.Errorf("%d bytes were read, want two sectors of 4096", n)
	}
}

// bytesRead returns how many bytes this thread has read (proc_pid_io(5)).
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// If direct I/O needs a larger alignment than the device's sectors and offset have, auto
// chooses buffered I/O, and on fails. The file itself reports the alignment.
func TestDirectIOAlignment(t *testing.T) {
	path := newFile(t, "file", 1<<20)
	b, err := openFor(t, path, Options{DirectIO: SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	align, err := b.directAlignment()
	if err != nil || align <= 1 {
		t.Skipf("the file system here does not say what it needs: %d, %v", align, err)
	}
	b.SectorSize, b.Offset = align, uint64(align)
	if err := b.tryDirect(); err != nil {
		t.Errorf("sectors and offset of %d: %v", align, err)
	}
	b.SectorSize, b.Offset = align, uint64(align)/2
	wantHint(t, b.tryDirect(), unix.EINVAL, "offset", "{direct_io=auto}")
	b.SectorSize, b.Offset = align/2, 0
	wantHint(t, b.tryDirect(), unix.EINVAL, fmt.Sprintf("sectors of %d bytes: the file needs multiples of %d", align/2, align), "{sector_size")
}
