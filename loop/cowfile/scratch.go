package cowfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// scratchAttribute is an extended attribute (xattr(7)) of the files that were made for transient
// stores. A transient store has no header, so that nothing else tells it from a file of value.
const scratchAttribute = "user.ublk-loop.transient"

// transient makes a file with space for a change of each chunk if it is missing or empty, and
// returns the chunk size. It returns an error that wraps EEXIST if the file has other contents.
func (o *TableOptions) transient(origin uint64) (uint32, error) {
	chunk := o.ChunkSize
	if chunk == 0 {
		chunk = DefaultChunkSize
	}
	layout, err := snapshot.NewLayout(chunk)
	if err != nil {
		return 0, err
	}
	chunks, err := layout.OriginChunks(origin)
	if err != nil {
		return 0, err
	}
	file, _, err := openEmpty(o.Path)
	if errors.Is(err, os.ErrExist) && !isEmpty(o.Path) {
		return chunk, mayOverwrite(o.Path)
	}
	if err != nil {
		return 0, err
	}
	// Without the attribute, which not all file systems have, the file cannot be used a second time.
	_ = unix.Fsetxattr(int(file.Fd()), scratchAttribute, nil, 0)
	return chunk, errors.Join(file.Truncate(layout.Offset(chunks)), file.Close())
}

// mayOverwrite returns an error that wraps EEXIST if a transient store at a path would overwrite a
// persistent store, or a file that was not made for a transient store and has data.
func mayOverwrite(path string) error {
	_, err := describeHeader(path)
	if err == nil {
		err := fmt.Errorf("%s: is a persistent store: %w", path, unix.EEXIST)
		return hint.Add(err, "a transient store would overwrite it; name another file")
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	isFile, err := hasData(file)
	if err != nil || !isFile {
		return err
	}
	if _, err := unix.Fgetxattr(int(file.Fd()), scratchAttribute, nil); err == nil {
		return nil
	}
	err = fmt.Errorf("%s: has data, and was not made for a transient store: %w", path, unix.EEXIST)
	return hint.Add(err, "name another file, or remove this one; it is made again")
}

// hasData reports whether a file is a regular one that is not a hole as a whole.
func hasData(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	_, err = unix.Seek(int(file.Fd()), 0, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	if err != nil {
		err = fmt.Errorf("look for data in %s: %w", file.Name(), err)
	}
	return err == nil, err
}
