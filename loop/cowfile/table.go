package cowfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/cow"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// TableOptions say which snapshot Table describes.
type TableOptions struct {
	Origin string
	Path   string // the store
	// ChunkSize is in bytes. 0 means that of the store, or DefaultChunkSize for a new one.
	ChunkSize uint32
	// Transient makes a snapshot whose changes end with its server. The store then only has
	// space for data.
	Transient bool
	// Over is the table of a stack that checks Origin below the snapshot, as a line names it, and
	// OverBytes is its size. If Over is empty, nothing is between.
	Over      string
	OverBytes uint64
	// Made gets the store that Table makes. It may be nil.
	Made *Made
}

// Table returns the table of a snapshot, as package table reads it. It makes the store if the
// file does not exist or has the size 0, or if the disk is empty.
func Table(o TableOptions) (string, error) {
	origin, size, err := sizeOf(o.Origin)
	if err != nil {
		return "", err
	}
	format, chunkOf := "P", o.persistent
	if o.Transient {
		format, chunkOf = "N", o.transient
	}
	chunk, err := chunkOf(size)
	if err != nil {
		return "", err
	}
	if o.Over != "" {
		origin, size = o.Over, o.OverBytes
	} else if origin, err = tablePath(origin, o.Origin); err != nil {
		return "", err
	}
	store, _, err := sizeOf(o.Path)
	if err != nil {
		return "", err
	}
	if store, err = tablePath(store, o.Path); err != nil {
		return "", err
	}
	return fmt.Sprintf("0 %d snapshot %s %s %s %d\n", size/fileSector, origin, store, format, chunk/fileSector), nil
}

// tablePath returns a path of a file that a table can have: the resolved one, or else the given one,
// which can be a symbolic link.
func tablePath(resolved, given string) (string, error) {
	given, err := filepath.Abs(given)
	if err != nil {
		return "", err
	}
	for _, path := range []string{resolved, given} {
		if checkTablePath(path) == nil {
			return path, nil
		}
	}
	return "", hint.Add(checkTablePath(resolved), "rename the file, or name a symbolic link to it")
}

// checkTablePath returns an error that wraps errors.ErrUnsupported for a path that a table cannot have.
func checkTablePath(path string) error {
	if !table.IsWord(path) {
		return fmt.Errorf("%q in a table: a path with white space, control characters, #, the byte 0xa0, or what is not UTF-8: %w", path, errors.ErrUnsupported)
	}
	return nil
}

// sizeOf returns the resolved path and the size of a file or disk.
func sizeOf(path string) (resolved string, size uint64, err error) {
	file, err := backing.OpenPath(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = file.Close() }()
	part, err := backing.OpenPart(file, 0, 0)
	if err != nil {
		return "", 0, err
	}
	return file.Name(), uint64(part.Size()), part.Close()
}

// persistent returns the chunk size of a store, which it makes if it is missing.
func (o *TableOptions) persistent(origin uint64) (uint32, error) {
	info, err := describeHeader(o.Path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, snapshot.ErrNew) || isEmpty(o.Path) {
		create := CreateOptions{Path: o.Path, Origin: o.Origin, ChunkSize: o.ChunkSize}
		made, failed := makeStore(create)
		if failed != nil {
			return 0, fmt.Errorf("make the store: %w", failed)
		}
		if o.Made != nil {
			*o.Made = *made
		}
		info, err = describeHeader(o.Path)
	}
	switch {
	case err != nil:
		return 0, err
	case o.ChunkSize != 0 && o.ChunkSize != info.ChunkSize:
		return 0, fmt.Errorf("%s has chunks of %d bytes, not %d: %w", info.Path, info.ChunkSize, o.ChunkSize, unix.EINVAL)
	case isAboveStore(info.Label):
		err := fmt.Errorf("%s has changes of the store %s, not of an image: %w", info.Path, info.Label.OriginPath, unix.EINVAL)
		return 0, hint.Add(err, "attach it with the table that list --json has for its device")
	case info.Label != nil && info.Label.OriginSize&^(fileSector-1) != origin&^(fileSector-1):
		err := fmt.Errorf("%s has changes of another image, of %d bytes: %w", info.Path, info.Label.OriginSize, unix.EINVAL)
		return 0, &hint.Error{Err: err, Hint: "its image was " + info.Label.OriginPath}
	case info.Label != nil:
		err = o.refuseOther(info)
	}
	switch {
	case err != nil:
		return 0, err
	case info.Label != nil && o.Over != "" && !info.Label.Verity:
		return info.ChunkSize, markVerity(o.Path)
	}
	return info.ChunkSize, nil
}

// markVerity says in the label of a store that its origin is checked.
func markVerity(path string) error {
	s, err := openStore(path, false)
	if err != nil {
		return err
	}
	err = cow.UpdateLabel(s.File, func(label *snapshot.Label) *snapshot.Label {
		if label != nil { // the store may be another one by now
			label.Verity = true
		}
		return label
	})
	return errors.Join(err, s.Close())
}
