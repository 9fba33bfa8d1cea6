package backing

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// Passed is what a program leaves open of a backing for the program that takes its place:
// so the file is not closed, which some files do not answer, and never without its lock.
type Passed struct {
	File *os.File // Backing.File
	Lock *os.File // of Backing.Lock; nil for none
}

// Pass returns what the backing leaves to the next program. It stays the backing's.
func (b *Backing) Pass() Passed {
	p := Passed{File: b.File}
	if b.Lock != nil {
		p.Lock = b.Lock.Holder()
	}
	return p
}

// Close closes what no backing has taken over.
func (p Passed) Close() {
	for _, f := range []*os.File{p.File, p.Lock} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Adopt is Open for what the last program of this process had open, with the same options.
// The files are the backing's from then on, unless Adopt returns an error. It returns an
// error that wraps EBUSY while that program's rings work on the object.
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

// Disown undoes Adopt: what was passed is the caller's again.
func (b *Backing) Disown() {
	if b.Lock != nil {
		b.Lock.Disown()
	}
	b.FD, b.File, b.Lock = -1, nil, nil
}
