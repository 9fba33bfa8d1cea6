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
func Format(w Medium, l Layout) error {
	zeroes := make([]byte, l.ChunkSize())
	for chunk := range uint64(firstFree) {
		if _, err := w.WriteAt(zeroes, l.Offset(chunk)); err != nil {
			return fmt.Errorf("zero chunk %d of the snapshot store: %w", chunk, err)
		}
	}
	if err := w.Sync(); err != nil {
		return err
	}
	block := append(make([]byte, 0, HeaderBlock), zeroes[:HeaderBlock]...)
	Header{Valid: true, Layout: l}.Append(block[:0])
	if _, err := w.WriteAt(block, 0); err != nil {
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
