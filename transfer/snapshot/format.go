package snapshot

import (
	"fmt"
	"io"
)

// A Medium is what Format writes to. *os.File is one.
type Medium interface {
	io.WriterAt
	Sync() error
}

// Format makes a new store. It zeroes the first two chunks, and writes the header only
// after they are on the medium, so that a store with a header never has old records.
// The caller has checked with CheckEmpty that nothing is lost.
func Format(w Medium, l Layout) error { return FormatLabelled(w, l, nil) }

// FormatLabelled is Format for a store with a label, which is written before the header.
func FormatLabelled(w Medium, l Layout, label *Label) error {
	block := make([]byte, l.ChunkSize())
	if _, err := w.WriteAt(block, l.Offset(l.Area(0))); err != nil {
		return fmt.Errorf("zero the first area of the snapshot store: %w", err)
	}
	if label != nil {
		if err := label.Put(block); err != nil {
			return err
		}
	}
	if err := writeHeader(w, block); err != nil {
		return err
	}
	Header{Valid: true, Layout: l}.Append(block[:0])
	return writeHeader(w, block[:HeaderBlock])
}

// writeHeader writes the first block of a store, or its whole first chunk.
func writeHeader(w Medium, b []byte) error {
	if _, err := w.WriteAt(b, 0); err != nil {
		return fmt.Errorf("header of the snapshot store: %w", err)
	}
	return w.Sync()
}

// checkedForData is how much CheckEmpty reads, unless the first two chunks are longer.
// Partition tables, and the superblocks of all file systems that mkfs makes on Linux,
// begin there.
const checkedForData = 128 << 10

// CheckEmpty returns an error that wraps ErrNotEmpty unless the beginning of a file or
// disk is zero. The kernel only looks at the first four bytes, and these are also zero
// at the beginning of an ext4 file system.
func CheckEmpty(r io.ReaderAt, size uint64, l Layout) error {
	if l.StoreChunks(size) <= firstFree {
		return fmt.Errorf("%d bytes: %w", size, ErrTooSmall)
	}
	b := make([]byte, min(size&^(HeaderBlock-1), max(checkedForData, uint64(l.Offset(firstFree)))))
	if err := readFull(r, b, 0); err != nil {
		return err
	}
	if !isZero(b) {
		return ErrNotEmpty
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
