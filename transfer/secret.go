package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Secret is memory for a key. It is outside Go's heap, so the runtime never
// copies it. It is locked, so it is never in swap. Core dumps and child
// processes do not contain it, and Close wipes it. Printing a Secret shows none
// of its bytes.
//
// A Secret has one owner, who closes it.
type Secret struct {
	mem []byte // whole pages
	n   int
}

// NewSecret returns n zero bytes, page-aligned. The error wraps ENOMEM or EPERM
// if the process may not lock more memory (RLIMIT_MEMLOCK, without
// CAP_IPC_LOCK).
func NewSecret(n int) (*Secret, error) {
	page := os.Getpagesize()
	size := max((n+page-1)/page, 1) * page
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for a key: %w", size, err)
	}
	if err := protect(mem); err != nil {
		_ = syscall.Munmap(mem)
		return nil, err
	}
	return &Secret{mem, n}, nil
}

// madvDontDump is MADV_DONTDUMP of madvise(2), Linux 3.4.
const madvDontDump = 0x10

// protect locks memory and excludes it from core dumps and child processes.
func protect(mem []byte) error {
	if err := syscall.Mlock(mem); err != nil {
		return fmt.Errorf("lock %d bytes for a key: %w", len(mem), err)
	}
	for _, advice := range []int{madvDontDump, syscall.MADV_DONTFORK} {
		if err := syscall.Madvise(mem, advice); err != nil {
			return fmt.Errorf("protect memory for a key: %w", err)
		}
	}
	return nil
}

// ErrTooLong is returned by ReadSecret if there is more data than its limit.
var ErrTooLong = errors.New("too long")

// ReadSecret reads r to its end, up to limit bytes. It reads directly into the
// secret, so no other copy exists unless r makes one.
func ReadSecret(r io.Reader, limit int) (*Secret, error) {
	s, err := NewSecret(os.Getpagesize())
	if err != nil {
		return nil, err
	}
	s.n = 0
	for {
		n, err := r.Read(s.mem[s.n:])
		s.n += n
		switch {
		case s.n > limit:
			err = ErrTooLong
		case errors.Is(err, io.EOF):
			return s, nil
		case err == nil && s.n == len(s.mem):
			err = s.grow()
		}
		if err != nil {
			s.Close()
			return nil, err
		}
	}
}

// grow doubles the size of a secret's memory.
func (s *Secret) grow() error {
	larger, err := NewSecret(2 * len(s.mem))
	if err != nil {
		return err
	}
	CopyKey(larger.mem, s.Bytes())
	larger.n = s.n
	s.Close()
	*s = *larger
	return nil
}

// Bytes returns the secret's own memory, or nil after Close.
func (s *Secret) Bytes() []byte { return s.mem[:s.n:s.n] }

// Clone returns a copy of the secret, with an owner of its own.
func (s *Secret) Clone() (*Secret, error) {
	c, err := NewSecret(s.n)
	if err != nil {
		return nil, err
	}
	CopyKey(c.mem, s.Bytes())
	return c, nil
}

// CopyKey copies a key: len(key) bytes to the start of to, which must be as long. copy(to, key) would leave
// the key in the processor's vector registers, and the kernel writes these to a stack of Go's
// runtime, in ordinary memory, when a signal arrives. CopyKey leaves at most one byte of the
// key in a register.
func CopyKey(to, key []byte) {
	to = to[:len(key)]
	for i, b := range key { //nolint:staticcheck // S1001 proposes copy
		to[i] = b
	}
}

// Truncate shortens the secret to n bytes and wipes the rest.
func (s *Secret) Truncate(n int) {
	clear(s.mem[n:])
	s.n = n
}

// Close wipes the secret and unmaps its memory. A second call does nothing.
func (s *Secret) Close() {
	if s.mem == nil {
		return
	}
	clear(s.mem)
	_ = syscall.Munmap(s.mem) // cannot fail for this mapping
	s.mem, s.n = nil, 0
}

// Format implements fmt.Formatter: no verb shows the bytes.
func (s *Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secret)") }

// MarshalJSON implements json.Marshaler and always fails.
func (s *Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a secret is not for writing down")
}
