package backing

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Passed has the open files of a backing that a program passes to the program that
// replaces it. So the file stays open, which matters because some files cannot be opened
// again, and it stays locked.
type Passed struct {
	File *os.File // Backing.File
	Lock *os.File // the holder of Backing.Lock; nil without a lock
}

// Pass returns the open files for the next program. The backing still owns them.
func (b *Backing) Pass() Passed {
	p := Passed{File: b.File}
	if b.Lock != nil {
		p.Lock = b.Lock.Holder()
	}
	return p
}

// Close closes the files if no backing has taken them over.
func (p Passed) Close() {
	for _, f := range []*os.File{p.File, p.Lock} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Adopt is Open for the open files of the last program in this process, with the same
// options. The backing owns the files, unless Adopt returns an error. Adopt returns an
// error that wraps EBUSY while the rings of the last program work on the object.
func Adopt(p Passed, o *Options) (*Backing, error) {
	b := newBacking(p.File, o)
	if err := b.adopt(p, o); err != nil {
		b.Disown()
		return nil, fmt.Errorf("take over %s: %w", b.Path, err)
	}
	return b, nil
}

func (b *Backing) adopt(p Passed, o *Options) error {
	b.use(p.File)
	if err := b.identify(p.File); err != nil {
		return err
	}
	var err error
	if b.Identity, err = identity.OfDescriptor(b.FD); err != nil {
		return err
	}
	return b.describe(o, p.Lock)
}

// Disown undoes Adopt: the caller owns the passed files again.
func (b *Backing) Disown() {
	if b.Lock != nil {
		b.Lock.Disown()
	}
	b.FD, b.File, b.Lock = -1, nil, nil
}

// Ask makes the same queries as Adopt, of a file system that may never answer.
func (b *Backing) Ask() error {
	var stx unix.Statx_t
	err := unix.Statx(b.FD, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &stx)
	if err == nil {
		var st unix.Statfs_t
		err = unix.Fstatfs(b.FD, &st)
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w", b.Path, err)
	}
	return nil
}
