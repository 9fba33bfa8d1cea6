package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// load writes to a device and verifies it. A block must hold the last successful write,
// or a failed write that came after it.
type load struct {
	stop   atomic.Bool
	done   chan error
	failed atomic.Int64 // number of reads and writes that failed with EIO
	wrote  atomic.Int64
}

const (
	loaders      = 8
	loaderBlocks = 64 // blocks of each writer
	loadBytes    = loaders * loaderBlocks * 4096
)

// startLoad starts the writers. end stops them.
func startLoad(t testing.TB, device string) *load {
	t.Helper()
	l := &load{done: make(chan error, loaders)}
	for n := range loaders {
		f, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		page := alignedPage(t)
		go func() { // until stop; end waits for it
			err := l.run(f, page, uint64(n))
			l.done <- errors.Join(err, f.Close())
		}()
	}
	return l
}

// end stops the writers, and returns the number of requests that failed with EIO.
func (l *load) end(t testing.TB) int64 {
	t.Helper()
	l.stop.Store(true)
	for range loaders {
		if err := <-l.done; err != nil {
			t.Error(err)
		}
	}
	return l.failed.Load()
}

// goesOn waits until each writer may have finished another write, so that the next action
// happens while writes are running.
func (l *load) goesOn(t testing.TB) {
	t.Helper()
	was := l.wrote.Load()
	waitUntil(t, "the writers go on", func() bool { return l.wrote.Load() >= was+loaders })
}

// block records the possible contents of a block: the last successful write, and the
// failed writes since then, each of which the device may have carried out.
type block struct {
	last   uint64
	failed []uint64
}

func (b *block) mayHold(number uint64) bool {
	return number == b.last || slices.Contains(b.failed, number)
}

func (l *load) run(f *os.File, page []byte, writer uint64) error {
	var blocks [loaderBlocks]block
	for number := uint64(1); !l.stop.Load(); number++ {
		i := rand.N(uint64(loaderBlocks))
		at := int64(writer*loaderBlocks+i) * 4096
		stamp(page, writer, number)
		_, err := f.WriteAt(page, at)
		l.wrote.Add(1)
		switch {
		case errors.Is(err, unix.EIO):
			l.failed.Add(1)
			blocks[i].failed = append(blocks[i].failed, number)
			continue // the content is uncertain until the next write
		case err != nil:
			return err
		}
		blocks[i] = block{last: number}
		i = rand.N(uint64(loaderBlocks))
		if err := l.check(f, page, writer, i, &blocks[i]); err != nil {
			return err
		}
	}
	for i := range blocks {
		if err := l.check(f, page, writer, uint64(i), &blocks[i]); err != nil {
			return err
		}
	}
	return nil
}

// check reads a block and compares it, if it has been written.
func (l *load) check(f *os.File, page []byte, writer, i uint64, want *block) error {
	if want.last == 0 {
		return nil
	}
	_, err := f.ReadAt(page, int64(writer*loaderBlocks+i)*4096)
	if errors.Is(err, unix.EIO) {
		l.failed.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	for off := 0; off < len(page); off += 16 {
		got := binary.NativeEndian.Uint64(page[off+8:])
		if binary.NativeEndian.Uint64(page[off:]) != writer || !want.mayHold(got) {
			return fmt.Errorf("block %d of writer %d holds write %d at %d, want %d or of %d", i, writer, got, off, want.last, want.failed)
		}
	}
	return nil
}

// stamp fills a page with the writer and the number of the write.
func stamp(page []byte, writer, number uint64) {
	for off := 0; off < len(page); off += 16 {
		binary.NativeEndian.PutUint64(page[off:], writer)
		binary.NativeEndian.PutUint64(page[off+8:], number)
	}
}
