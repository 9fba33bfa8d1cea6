package cowfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// MergeOptions say what to merge.
type MergeOptions struct {
	Path string
	// Base is the origin of the store. If it is empty, the store says where its origin is, and
	// the file there must say that this store needs it.
	Base string
	// Verity returns an error if an image has a hash tree, which would not match it any longer.
	Verity func(image *os.File) error
	// Force merges also into an image that is checked against a hash tree.
	Force bool
}

// Merged is the result of Merge.
type Merged struct {
	Base   string // absolute, with all links resolved
	Chunks uint64 // chunks that were copied
}

// Merge writes the changes of a store to its base, and leaves the store empty. It can be
// interrupted at any time, also by a power cut. Merge then continues, and so does the
// kernel's target snapshot-merge.
func Merge(ctx context.Context, o MergeOptions) (_ *Merged, err error) {
	s, err := openStore(o.Path, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.mayBeMerged(o.Force); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	base, err := s.openBase(o.Base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	if !o.Force && o.Verity != nil {
		if err := o.Verity(base.File); err != nil {
			return nil, fmt.Errorf("%s: %w", base.Path, err)
		}
	}
	m, err := newMerging(s.File, base.File, s.header.Layout, s.Size, base.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	if err := m.all(ctx); err != nil {
		return nil, err
	}
	if s.label != nil {
		err = basemark.Remove(lockDir, base.File, s.label.UUID)
	}
	return &Merged{Base: base.Path, Chunks: m.copied}, err
}

// ErrVerity is returned for a merge into an image that is checked against a hash tree.
var ErrVerity = snapshot.ErrVerity

// mayBeMerged refuses an invalid store, a store that others need, and one whose base is checked.
func (s *store) mayBeMerged(force bool) error {
	switch {
	case !s.header.Valid:
		return ErrInvalid
	case s.label != nil && s.label.Frozen:
		return cow.FrozenError()
	case isAboveStore(s.label):
		return fmt.Errorf("its origin is the store %s, not an image: %w", s.label.OriginPath, unix.EOPNOTSUPP)
	}
	if s.label != nil && s.label.Verity && !force {
		return hint.Add(ErrVerity, "with {force} the base is written, and useless with its root hash")
	}
	return nil
}

// openBase opens the base of a store for writing.
func (s *store) openBase(path string) (*backing.Backing, error) {
	named := path != ""
	if !named {
		if s.label == nil {
			err := fmt.Errorf("%s does not say what its base is: %w", s.Path, unix.EINVAL)
			return nil, hint.Add(err, "name the base with --base")
		}
		path = s.label.OriginPath
	}
	o := &backing.Options{}
	if s.label != nil {
		id := basemark.UUID(s.label.UUID)
		o.Store = &id
	}
	base, err := openLocked(path, o)
	if err != nil {
		return nil, err
	}
	if err := s.checkBase(base, named); err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return base, nil
}

// checkBase refuses another file than the base. The path in a store proves nothing: whoever
// could write to the store could choose the file that root overwrites. Therefore the file
// must name the store too, unless the caller has named the file.
func (s *store) checkBase(base *backing.Backing, named bool) error {
	isStore, err := snapshot.IsStore(base.File)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", base.Path, err)
	case isStore:
		return fmt.Errorf("merge into the store %s: %w", base.Path, unix.EOPNOTSUPP)
	}
	if s.label == nil {
		return nil
	}
	if base.Size != s.label.OriginSize {
		return fmt.Errorf("%s has %d bytes, the origin of %s has %d: %w", base.Path, base.Size, s.Path, s.label.OriginSize, unix.EINVAL)
	}
	if named {
		return nil
	}
	stores, err := basemark.List(base.File)
	if err != nil {
		return err
	}
	if !slices.Contains(stores, basemark.UUID(s.label.UUID)) {
		err := fmt.Errorf("%s does not say that it is the base of %s: %w", base.Path, s.Path, unix.EPERM)
		return hint.Add(err, "if it is, name it with --base")
	}
	return nil
}
