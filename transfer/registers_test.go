package transfer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A copy of a key leaves no part of it in the vector registers, which a signal would write to a stack in Go's
// heap.
func TestCopiesLeaveNoKeyInRegisters(t *testing.T) {
	for name, f := range map[string]func(*Secret) (*Secret, error){
		"Clone": (*Secret).Clone,
		"CopyKey": func(s *Secret) (*Secret, error) {
			c, err := NewSecret(len(s.Bytes()))
			if err == nil {
				CopyKey(c.Bytes(), s.Bytes())
			}
			return c, err
		},
		"grow": func(s *Secret) (*Secret, error) {
			c, err := s.Clone()
			if err == nil {
				err = c.grow()
			}
			return c, err
		},
		"New": func(s *Secret) (*Secret, error) {
			c, err := s.Clone()
			if err != nil {
				return nil, err
			}
			x, err := New(AESXTSPlain64, c, Options{SectorSize: 512})
			if err != nil {
				return nil, err
			}
			return c, x.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread() // never unlocked, so that the thread with blocked signals ends
			s, err := NewSecret(64)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := unix.Getrandom(s.Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			c, err := f(s)
			errs := errors.Join(err, unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGURG), blockURG())
			if errs != nil {
				t.Fatal(errs)
			}
			c.Close()
			for _, at := range findInMemory(t, s.Bytes()) {
				t.Errorf("a part of the key is in %s", at)
			}
		})
	}
}

// blockURG keeps Go's runtime from sending this thread another signal, whose frame would be in the place of
// the first one's.
func blockURG() error {
	set := unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGURG - 1)}}
	return unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil)
}

// findInMemory returns the places in this process's memory, other than key itself, that have 16 bytes of the
// key, where a vector register could be in the frame of a signal. It never has these bytes together in a register.
func findInMemory(t *testing.T, key []byte) (places []string) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = maps.Close() }()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	own := uintptr(unsafe.Pointer(&key[0]))
	buf := make([]byte, 1<<20)
	searched := 0
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end uintptr
		var mode string
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode)
		if n < 3 || mode != "rw-p" || start <= own && own < end || end-start > 64<<20 { // the race detector's are larger
			continue
		}
		for at := start; at < end; at += uintptr(len(buf)) {
			n, err := mem.ReadAt(buf[:min(uintptr(len(buf)), end-at)], int64(at))
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			searched += n
			if hasPart(buf[:n], key) {
				places = append(places, fmt.Sprintf("%#x: %s", at, lines.Text()))
			}
		}
	}
	if searched < 1<<20 {
		t.Fatalf("only %d bytes of memory were searched", searched)
	}
	return places
}

var zeroPage = make([]byte, 4096)

// hasPart reports whether one of the parts of 16 bytes of key is in mem, at a multiple of 8 bytes.
func hasPart(mem, key []byte) bool {
	for i := 0; i+16 <= len(mem); i += 8 {
		if page := mem[i:]; i%len(zeroPage) == 0 && len(page) >= len(zeroPage) && bytes.Equal(page[:len(zeroPage)], zeroPage) {
			i += len(zeroPage) - 8 // most pages, and the race detector makes this loop slow
			continue
		}
		word := binary.LittleEndian.Uint64(mem[i:])
		for k := 0; k < len(key); k += 16 {
			if word == binary.LittleEndian.Uint64(key[k:]) && binary.LittleEndian.Uint64(mem[i+8:]) == binary.LittleEndian.Uint64(key[k+8:]) {
				return true
			}
		}
	}
	return false
}
