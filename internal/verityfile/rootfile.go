package verityfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/newfile"
)

// rootFile is the file to which Format writes the root hash. It has its old contents until then.
type rootFile struct {
	*os.File
	created bool
}

// openRootFile opens the file. It does not wait for the reader of a FIFO, because an interrupt would
// not end that.
func openRootFile(path string) (*rootFile, error) {
	const flags = os.O_WRONLY | os.O_CREATE | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags|os.O_EXCL, 0o666)
	created := err == nil
	if errors.Is(err, unix.EEXIST) {
		f, err = os.OpenFile(path, flags, 0o666) // may be a link to a new file
	}
	if err != nil {
		return nil, err
	}
	return &rootFile{f, created}, nil
}

// refuse refuses a file that has something else.
func (r *rootFile) refuse(other *store) error {
	same, err := sameFile(r.File, other.File)
	if err == nil && same {
		err = fmt.Errorf("%s cannot have the root hash, too: %w", r.Name(), unix.EINVAL)
	}
	return err
}

func (r *rootFile) write(root []byte) error {
	return newfile.Replace(r.File, []byte(hex.EncodeToString(root)))
}

// close closes the file. After an error it first removes a new file.
func (r *rootFile) close(err error) error {
	if err != nil && r.created {
		err = errors.Join(err, (&newfile.File{File: r.File}).Remove())
	}
	return errors.Join(err, r.Close())
}
