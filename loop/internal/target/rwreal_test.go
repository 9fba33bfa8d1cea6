package target

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// In these tests the kernel itself fails an operation, or carries it out partially. In a
// queue of depth 1 that breaks the link between the operation and its commit.

// fails is a read or write that must fail.
type fails struct {
	name   string
	op     ublk.Op
	open   func(*testing.T) int
	want   unix.Errno
	before int // number of partial operations before the failure
}

var failing = []fails{
	{"a full disk", ublk.OpWrite, func(t *testing.T) int { return openDevice(t, "/dev/full") }, unix.ENOSPC, 0},
	{"a sealed file", ublk.OpWrite, sealedFile(unix.F_SEAL_WRITE, 64<<10), unix.EPERM, 0},
	{"a file that can't grow", ublk.OpWrite, sealedFile(unix.F_SEAL_GROW, 0), unix.EPERM, 0},
	{"a file that can't grow enough", ublk.OpWrite, sealedFile(unix.F_SEAL_GROW, 4096), unix.EPERM, 1},
	{"a file opened for reading", ublk.OpWrite, func(t *testing.T) int { return openDevice(t, "/proc/self/exe") }, unix.EBADF, 0},
	{"a directory", ublk.OpRead, func(t *testing.T) int { return openDevice(t, "/") }, unix.EISDIR, 0},
	{"a file opened for writing", ublk.OpRead, func(t *testing.T) int { _, w := pipe(t); return w }, unix.EBADF, 0},
	{"nothing to read", ublk.OpRead, func(t *testing.T) int { return openDevice(t, "/dev/null") }, unix.EIO, 0},
}

func openDevice(t *testing.T, path string) int {
	t.Helper()
	flags := os.O_RDONLY
	if path == "/dev/full" {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd())
}

func sealedFile(seals int, size int) func(*testing.T) int {
	return func(t *testing.T) int {
		f := memoryFile(t, make([]byte, size))
		seal(t, f, seals)
		return int(f.Fd())
	}
}

// If the kernel fails an operation, the request fails once, with the kernel's errno, with
// or without a linked commit.
func TestDataRealErrno(t *testing.T) {
	for _, tt := range failing {
		t.Run(tt.name, func(t *testing.T) {
			for _, depth := range []int{alone, together} {
				d := ublktest.NewDisk(t, depth, &Target{Backing: &backing.Backing{FD: tt.open(t)}})
				for range 2 {
					req := ublktest.Request{Op: tt.op, Sectors: 16, Data: pattern(8192)}
					r := d.Do(req)
					wantResult(t, r, failed(tt.want), tt.before+1)
					if r.Linked {
						t.Error("the kernel has committed what it failed")
					}
				}
			}
		})
	}
}

// Partial operations of the kernel add up to the whole request, in order. A pipe
// transfers as much as fits.
func TestDataRealParts(t *testing.T) {
	for _, depth := range []int{alone, together} {
		reader, writer := pipe(t)
		want := pattern(3*4096 - 512)
		rest := want[1000:]
		write(t, writer, want[:1000])
		d := ublktest.NewDisk(t, depth, &Target{Backing: &backing.Backing{FD: reader}})
		r := d.Do(ublktest.Request{Op: ublk.OpRead, Sectors: uint32(len(want) / 512), Ended: func(int32) {
			n := min(4096, len(rest))
			write(t, writer, rest[:n])
			rest = rest[n:]
		}})
		wantResult(t, r, int32(len(want)), 4)
		if !bytes.Equal(r.Data, want) {
			t.Error("read other bytes than were written to the pipe")
		}

		reader, writer = pipe(t)
		var got []byte
		d = ublktest.NewDisk(t, depth, &Target{Backing: &backing.Backing{FD: writer}})
		r = d.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: uint32(len(want) / 512), Data: want, Ended: func(int32) {
			got = append(got, drain(t, reader)...)
		}})
		wantResult(t, r, int32(len(want)), 3)
		if !bytes.Equal(got, want) {
			t.Errorf("the pipe has %d other bytes than were written", len(got))
		}
	}
}

// drain returns the content of a pipe.
func drain(t *testing.T, fd int) []byte {
	t.Helper()
	p := make([]byte, 8192)
	n, err := unix.Read(fd, p)
	if err != nil {
		t.Errorf("read from a pipe: %v", err)
		return nil
	}
	return p[:n]
}

// write writes to a pipe that has room.
func write(t *testing.T, fd int, p []byte) {
	t.Helper()
	if len(p) == 0 {
		return
	}
	if n, err := unix.Write(fd, p); n != len(p) {
		t.Errorf("wrote %d of %d bytes to a pipe, error %v", n, len(p), err)
	}
}

// pipe returns a non-blocking pipe with room for a page.
func pipe(t *testing.T) (reader, writer int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	})
	if _, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}
