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

// submissions are the entries of a ring's submission queue, through a mapping of
// its own. Only the ring's thread uses it.
type submissions struct {
	r       *ring.Ring
	mem     []byte
	entries uint32
	seen    uint32 // how many entries the ring had handed out when it was last looked at
}

func watchSubmissions(r *ring.Ring) (*submissions, error) {
	s := &submissions{r: r}
	s.entries = s.told("SqMask") + 1
	var err error
	s.mem, err = unix.Mmap(r.FD(), ring.IORING_OFF_SQES, int(s.entries)*int(unsafe.Sizeof(ring.SQE{})),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map entries: %w", err)
	}
	return s, nil
}

func (s *submissions) close() { _ = unix.Munmap(s.mem) }

// skip leaves out what has been handed out so far.
func (s *submissions) skip() { s.seen = s.tail() }

// next returns the entries that have been handed out since.
func (s *submissions) next() iter.Seq[*ring.SQE] {
	return func(yield func(*ring.SQE) bool) {
		for tail := s.tail(); s.seen != tail; {
			at := uintptr(s.seen%s.entries) * unsafe.Sizeof(ring.SQE{})
			s.seen++
			// The mapping holds entries of this size, from its start on.
			if !yield((*ring.SQE)(unsafe.Pointer(&s.mem[at]))) {
				return
			}
		}
	}
}

// tail returns how many entries the ring has handed out.
func (s *submissions) tail() uint32 { return s.told("SqHead") + s.entries - uint32(s.r.SQSpace()) }

// told returns a number that the kernel tells of the ring
// (io_uring_show_fdinfo in io_uring/fdinfo.c). It tells none while one of its own
// threads has the ring's lock.
func (s *submissions) told(name string) uint32 {
	path := fmt.Sprintf("/proc/self/fdinfo/%d", s.r.FD())
	for {
		info, err := os.ReadFile(path)
		if err != nil {
			panic(err) // a ring that is open has this file
		}
		if _, rest, found := strings.Cut(string(info), "\n"+name+":"); found {
			line, _, _ := strings.Cut(rest, "\n")
			n, err := strconv.ParseUint(strings.TrimSpace(line), 0, 32)
			if err != nil {
				panic(err)
			}
			return uint32(n)
		}
	}
}
