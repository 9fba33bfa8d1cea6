package ring

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout has the size of what the kernel writes.
func TestLayoutSize(t *testing.T) {
	if size := unsafe.Sizeof(ioUringParams{}); size != LayoutSize {
		t.Errorf("LayoutSize is %d, want %d", LayoutSize, size)
	}
}

// A ring that another thread has made works as one of New, with its restrictions, also after the end of that thread.
func TestAdoptedRing(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			newRing(t, opts) // skips
			opts.Restrictions = &Restrictions{Ops: []uint8{IORING_OP_NOP}, Registers: []uint8{IORING_REGISTER_FILES}}
			fd, layout := made(t, opts)
			r, err := Adopt(fd, layout)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			*r.GetSQE() = SQE{Opcode: IORING_OP_NOP}
			if res := do(t, r, 1)[0]; res != 0 {
				t.Errorf("nothing: %d, want 0", res)
			}
			*r.GetSQE() = SQE{Opcode: IORING_OP_SOCKET, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM}
			if res := do(t, r, 1)[0]; res != -int32(unix.EACCES) {
				t.Errorf("another operation: %d, want EACCES", res)
			}
			if _, err := r.NewProbe(); !errors.Is(err, unix.EACCES) {
				t.Errorf("another registration: %v, want EACCES", err)
			}
		})
	}
}

// made makes a ring in a thread that ends.
func made(t *testing.T, opts Options) (fd int, layout Layout) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		fd, layout, err = Make(opts)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return fd, layout
}

// A ring for another process always has restrictions.
func TestMakeWithoutRestrictions(t *testing.T) {
	if fd, _, err := Make(Options{}); !errors.Is(err, unix.EINVAL) || fd != -1 {
		t.Errorf("descriptor %d, error %v, want -1 and EINVAL", fd, err)
	}
}

// Adopt closes what is not a ring.
func TestAdoptNoRing(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pipe[0]) }()
	if r, err := Adopt(pipe[1], Layout{}); err == nil || r != nil {
		t.Errorf("ring %v, error %v", r, err)
	}
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the descriptor is open: read %d bytes, %v", n, err)
	}
}
