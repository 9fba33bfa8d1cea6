package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// startLoose lets rings make sockets, and their limits be registered.
func startLoose() error {
	return ring.RestrictThreads(ring.Restrictions{
		Ops:       []uint8{ring.IORING_OP_NOP, ring.IORING_OP_SOCKET},
		Registers: []uint8{ring.IORING_REGISTER_RESTRICTIONS, ring.IORING_REGISTER_ENABLE_RINGS},
	})
}

// ringFilter is struct io_uring_bpf of linux/io_uring/bpf_filter.h with a struct io_uring_bpf_filter.
type ringFilter struct {
	Command, _   uint16
	_            uint32
	Opcode       uint32
	Flags        uint32
	Instructions uint32
	_            [4]uint8
	Program      uint64
	_            [5]uint64
}

// startFiltered forbids IORING_OP_FSYNC with a filter.
func startFiltered() error {
	deny := statement(unix.BPF_RET|unix.BPF_K, 0)
	var pinner runtime.Pinner // the kernel reads the program through an address in the argument
	defer pinner.Unpin()
	pinner.Pin(&deny)
	f := &ringFilter{Command: 1, Opcode: ring.IORING_OP_FSYNC, Instructions: 1, Program: uint64(uintptr(unsafe.Pointer(&deny)))}
	const register, none = 37, -1
	fd := none
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), register, uintptr(unsafe.Pointer(f)), 1, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// beside returns what a process can do with a ring that another one makes for it, when both have limits of a starter.
func beside(starter func() error) string {
	if err := errors.Join(setNoNewPrivs(), starter()); err != nil {
		return err.Error()
	}
	said := []string{fmt.Sprintf("unsupported: %v", errors.Is(LimitRings(ServingRings), errors.ErrUnsupported))}
	for _, opcode := range []uint8{ring.IORING_OP_NOP, ring.IORING_OP_SOCKET, ring.IORING_OP_FSYNC, ring.IORING_OP_READ} {
		fd, layout, err := makeRing(ring.Options{Restrictions: &ring.Restrictions{
			Ops: []uint8{ring.IORING_OP_NOP, ring.IORING_OP_FSYNC},
		}})
		if err != nil {
			return err.Error()
		}
		r, err := ring.Adopt(fd, layout)
		if err != nil {
			return err.Error()
		}
		said = append(said, fmt.Sprintf("%d: %v", opcode, carryOut(r, &ring.SQE{Opcode: opcode, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM})))
		_ = r.Close()
	}
	return strings.Join(said, "\n")
}

// If who started the server limits or filters its rings, the kernel takes no limits of the process. The rings that
// the server makes have the limits of the starter, or the server's besides the filter.
func TestKernelRingsBesideStarters(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain, ublktest.OldestAndNewest)
	if err := ring.HasTaskRestrictions(); errors.Is(err, errors.ErrUnsupported) {
		return // no starter can have limits
	} else if err != nil {
		t.Fatal(err)
	}
	const denied = "permission denied"
	for role, want := range map[string][]string{
		looseRole:    {"unsupported: true", "0: <nil>", "45: <nil>", "3: " + denied, "22: " + denied},
		filteredRole: {"unsupported: true", "0: <nil>", "45: " + denied, "3: " + denied, "22: " + denied},
	} {
		if got := strings.Join(run(t, role), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("%s: the process says:\n%s\nwant:\n%s", role, got, strings.Join(want, "\n"))
		}
	}
}
