package cowfile

import (
	"errors"
	"fmt"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// CreateAbove makes an empty store in a new file, for a snapshot above the device of a table
// whose last line is a snapshot. The store has the chunk size of that snapshot's.
func CreateAbove(path, text string) (*newfile.File, error) {
	label, layout, err := labelAbove(text)
	if err != nil {
		return nil, err
	}
	chunks, err := layout.OriginChunks(label.OriginSize)
	if err != nil {
		return nil, err
	}
	f, err := newfile.Create(path)
	if err != nil {
		return nil, err
	}
	err = checkTablePath(f.File.Name())
	if err == nil {
		err = f.File.Truncate(int64(layout.StoreSize(chunks)))
	}
	if err == nil {
		err = snapshot.FormatLabelled(f.File, layout, label)
	}
	if err != nil {
		err = fmt.Errorf("create %s: %w", path, err)
		if f.Directory == nil {
			err = errors.Join(err, f.Remove())
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// labelAbove returns the label of a store above the device of a table, and its layout.
func labelAbove(text string) (*snapshot.Label, snapshot.Layout, error) {
	var layout snapshot.Layout
	if text == "" {
		err := fmt.Errorf("a device of one file is no snapshot: %w", errors.ErrUnsupported)
		return nil, layout, hint.Add(err, "only a device with a store can fork: ublk-loop add --cow")
	}
	tables, err := table.Parse([]byte(text), table.Options{})
	if err != nil {
		return nil, layout, err
	}
	defer tables.Close()
	lines := tables.Tables[len(tables.Tables)-1].Lines
	below, ok := lines[0].Target.(*table.Snapshot)
	if len(lines) != 1 || !ok || below.Format == table.Transient {
		return nil, layout, fmt.Errorf("the device is not a persistent snapshot: %w", errors.ErrUnsupported)
	}
	info, err := describeHeader(below.Store)
	if err != nil {
		return nil, layout, err
	}
	if layout, err = snapshot.NewLayout(info.ChunkSize); err != nil {
		return nil, layout, err
	}
	label := &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: lines[0].Length * fileSector, OriginPath: info.Path}
	if info.Label != nil {
		label.Parent = info.Label.UUID
	} else {
		label.Parent = snapshot.NewUUID() // cow.Freeze gives it to the store below
	}
	return label, layout, nil
}

// isAboveStore reports whether the origin of a store is another store. Early stores of forks do not say
// that, and only have the path of the store below. Such a store looks like one of an image of the
// same size, whose content would be wrong.
func isAboveStore(label *snapshot.Label) bool {
	if label == nil || !label.Parent.IsZero() {
		return label != nil
	}
	_, err := describeHeader(label.OriginPath)
	return err == nil || errors.Is(err, snapshot.ErrLabel)
}

// HasStore reports whether a table has the target snapshot.
func HasStore(text string) bool {
	tables, err := table.Parse([]byte(text), table.Options{})
	if err != nil {
		return false
	}
	defer tables.Close()
	return table.Has[*table.Snapshot](tables)
}
