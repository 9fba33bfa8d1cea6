package stack

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/pages"
)

// arenas are memory outside of the Go heap, for what operations of a ring write to and for
// large caches.
//
// A view of a part of it stays valid when the arena is freed: then the pages are gone, but not
// the addresses, because an operation of a ring that was given up may still write there.
type arenas struct{ all [][]byte }

// add returns n bytes, all of whose pages exist.
func (a *arenas) add(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	mem, err := pages.Map(n)
	if err == nil {
		a.all = append(a.all, mem)
	}
	return mem, err
}

// free gives the pages back, also where the server has locked its memory (Linux 5.18).
func (a *arenas) free() error {
	for _, mem := range a.all {
		if err := unix.Madvise(mem, unix.MADV_DONTNEED_LOCKED); err != nil {
			return fmt.Errorf("free %d bytes: %w", len(mem), err)
		}
	}
	a.all = nil
	return nil
}

// bitmap is a set of numbers that any number of threads can use.
type bitmap struct{ words []atomic.Uint32 }

// newBitmap returns an empty set of numbers below n.
func (a *arenas) newBitmap(n uint64) (*bitmap, error) {
	words := int((n + 31) / 32)
	mem, err := a.add(pages.Size[atomic.Uint32](words))
	if err != nil {
		return nil, err
	}
	return &bitmap{pages.Slice[atomic.Uint32](mem, words)}, nil
}

func (b *bitmap) has(n uint64) bool { return b.words[n/32].Load()&(1<<(n%32)) != 0 }

func (b *bitmap) add(n uint64) { b.words[n/32].Or(1 << (n % 32)) }
