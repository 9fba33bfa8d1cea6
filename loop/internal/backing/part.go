package backing

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Part is a readable part of a file or disk.
type Part struct {
	*io.SectionReader
	file *os.File
}

// OpenPart opens the part of an object of OpenPath that a device would serve. The part
// starts at offset bytes. It ends with the object, or after limit bytes if limit is not
// 0. OpenPart returns EINVAL for an offset that is not below the size.
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
	if err == nil && total == 0 {
		err = fmt.Errorf("empty: %w", unix.EINVAL)
	} else if err == nil && offset >= uint64(total) {
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

// File returns the open file or disk.
func (p *Part) File() *os.File { return p.file }
