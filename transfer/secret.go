package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Secret is memory for a key. It is outside of Go's heap, so that nothing
// copies it about; locked, so that it is never in swap; left out of core dumps
// and of child processes; and wiped by Close. Printed, it says none of it.
//
// It has one owner, who closes it.
type Secret struct {
	mem []byte // whole pages
	n   int
}

// NewSecret returns n bytes of zeroes, page-aligned. It returns ENOMEM or EPERM
// where no more memory may be locked (RLIMIT_MEMLOCK, without CAP_IPC_LOCK).
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

// protect keeps memory from where others could read it.
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

// ErrTooLong is what ReadSecret returns for more than its limit.
var ErrTooLong = errors.New("too long")

// ReadSecret reads all that r has, up to limit bytes. It reads into the secret
// itself, so no copy is left elsewhere if r makes none.
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

// grow doubles the room of a secret.
func (s *Secret) grow() error {
	larger, err := NewSecret(2 * len(s.mem))
	if err != nil {
		return err
	}
	larger.n = copy(larger.mem, s.Bytes())
	s.Close()
	*s = *larger
	return nil
}

// Bytes returns the secret's memory itself, nil once it is closed.
func (s *Secret) Bytes() []byte { return s.mem[:s.n:s.n] }

// Truncate shortens the secret to n bytes, and wipes the rest.
func (s *Secret) Truncate(n int) {
	clear(s.mem[n:])
	s.n = n
}

// Close wipes the secret and gives its memory back. It may be called again.
func (s *Secret) Close() {
	if s.mem == nil {
		return
	}
	clear(s.mem)
	_ = syscall.Munmap(s.mem) // which cannot fail for a mapping of our own
	s.mem, s.n = nil, 0
}

// Format implements fmt.Formatter: no verb shows the bytes.
func (s *Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secret)") }

// MarshalJSON implements json.Marshaler by refusing.
func (s *Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a secret is not for writing down")
}
