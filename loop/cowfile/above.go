package cowfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// CreateAbove makes an empty store in a new file, for a snapshot above the device of a table
// whose last line is a snapshot. The store has the chunk size of that snapshot's.
func CreateAbove(path, text string) error {
	tables, err := table.Parse([]byte(text), table.Options{})
	if err != nil {
		return err
	}
	defer tables.Close()
	lines := tables.Tables[len(tables.Tables)-1].Lines
	below, ok := lines[0].Target.(*table.Snapshot)
	if len(lines) != 1 || !ok || below.Format == table.Transient {
		return fmt.Errorf("the device is not a persistent snapshot: %w", errors.ErrUnsupported)
	}
	info, err := Inspect(below.Store)
	if err != nil {
		return err
	}
	layout, err := snapshot.NewLayout(info.ChunkSize)
	if err != nil {
		return err
	}
	size := lines[0].Length * fileSector
	chunks, err := layout.OriginChunks(size)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = file.Truncate(int64(layout.StoreSize(chunks)))
	if err == nil {
		err = snapshot.FormatLabelled(file, layout, &snapshot.Label{UUID: snapshot.NewUUID(), OriginSize: size, OriginPath: info.Path})
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, file.Close())
}
