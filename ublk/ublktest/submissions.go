package ublktest

import (
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// submissions maps the entries of a ring's submission queue once more. Only the ring's
// thread uses it.
type submissions struct {
	r       *ring.Ring
	mem     []byte
	entries uint32
	seen    uint32 // number of entries that the ring had handed out at the last look
}

func watchSubmissions(r *ring.Ring) (*submissions, error) {
	s := &submissions{r: r, entries: entriesOf(r)}
	var err error
	s.mem, err = unix.Mmap(r.FD(), ring.IORING_OFF_SQES, int(s.entries)*int(unsafe.Sizeof(ring.SQE{})),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map entries: %w", err)
	}
	return s, nil
}

func (s *submissions) close() { _ = unix.Munmap(s.mem) }

// skip ignores the entries that the ring has handed out so far.
func (s *submissions) skip() { s.seen = s.r.Issued() }

// next returns the entries that the ring has handed out since the last look.
func (s *submissions) next() iter.Seq[*ring.SQE] {
	return func(yield func(*ring.SQE) bool) {
		for tail := s.r.Issued(); s.seen != tail; {
			at := uintptr(s.seen%s.entries) * unsafe.Sizeof(ring.SQE{})
			s.seen++
			// The mapping consists of entries of this size.
			if !yield((*ring.SQE)(unsafe.Pointer(&s.mem[at]))) {
				return
			}
		}
	}
}

// entriesOf returns the size of a ring's submission queue, from the kernel's information about the ring
// (io_uring_show_fdinfo in io_uring/fdinfo.c). The kernel omits the number while one of its own threads
// holds the ring's lock; entriesOf then asks again.
func entriesOf(r *ring.Ring) uint32 {
	path := fmt.Sprintf("/proc/self/fdinfo/%d", r.FD())
	for {
		info, err := os.ReadFile(path)
		if err != nil {
			panic(err) // an open ring has this file
		}
		if _, rest, found := strings.Cut(string(info), "\nSqMask:"); found {
			line, _, _ := strings.Cut(rest, "\n")
			n, err := strconv.ParseUint(strings.TrimSpace(line), 0, 32)
			if err != nil {
				panic(err)
			}
			return uint32(n) + 1
		}
	}
}
