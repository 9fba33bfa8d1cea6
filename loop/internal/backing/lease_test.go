package backing

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leased returns a file on which this process has a lease of a kind.
func leased(t *testing.T, kind int) string {
	t.Helper()
	path := newFile(t, "file", 1<<20)
	holder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Close() })
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, kind); err != nil {
		t.Skipf("the file system of %s has no leases: %v", path, err)
	}
	return path
}

// An open does not wait for the holder of a lease, who has 45 seconds to give it up.
func TestOpenDoesNotWaitForLeases(t *testing.T) {
	for name, tt := range map[string]struct {
		lease int
		open  func(*os.File) error
	}{
		"a writer": {unix.F_RDLCK, func(f *os.File) error { _, err := Open(f, &Options{LockDir: locksOf(f.Name())}); return err }},
		"a reader": {unix.F_WRLCK, func(f *os.File) error {
			_, err := Open(f, &Options{ReadOnly: true, LockDir: locksOf(f.Name())})
			return err
		}},
		"a part": {unix.F_WRLCK, func(f *os.File) error { _, err := OpenPart(f, 0, 0); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			path := leased(t, tt.lease)
			opened := make(chan error, 1) // its goroutine ends with the lease
			file := openPath(t, path)
			go func() { opened <- tt.open(file) }()
			select {
			case err := <-opened:
				wantHint(t, err, unix.EAGAIN, path, "try again")
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for the holder of the lease")
			}
		})
	}
}

// An opened file is in blocking mode, because io_uring would fail operations that have to
// wait otherwise.
func TestOpenedWaits(t *testing.T) {
	b, err := openFor(t, newFile(t, "file", 1<<20), Options{})
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(uintptr(b.FD), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("open flags %#x, error %v", flags, err)
	}
}
