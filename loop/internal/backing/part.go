package backing

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Part is a part of a file or disk, to be read.
type Part struct {
	*io.SectionReader
	file *os.File
}

// OpenPart opens what of the object of OpenPath a device would be made of that
// starts offset bytes into it, and ends with it or after limit bytes, if that
// is not 0. It returns EINVAL for an offset that is not below the size.
func OpenPart(file *os.File, offset, limit uint64) (*Part, error) {
	p, err := openPart(file, offset, limit)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file.Name(), err)
	}
	return p, nil
}

func openPart(file *os.File, offset, limit uint64) (*Part, error) {
	fd, err := reopenQuietly(file, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	p := &Part{file: os.NewFile(uintptr(fd), file.Name())}
	total, err := p.file.Seek(0, io.SeekEnd)
	if err == nil && offset >= uint64(total) {
		err = fmt.Errorf("offset %d: not below the size %d: %w", offset, total, unix.EINVAL)
	}
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	size := uint64(total) - offset
	if limit != 0 {
		size = min(size, limit)
	}
	p.SectionReader = io.NewSectionReader(p.file, int64(offset), int64(size))
	return p, nil
}

// Close closes the file.
func (p *Part) Close() error { return p.file.Close() }
