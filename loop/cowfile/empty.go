package cowfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// openEmpty makes a file, or opens one of size 0, as mktemp(1) leaves it. A file that exists must
// belong to the caller and have no other name. Otherwise another user could have put it there, to read
// the store or to have another file overwritten.
func openEmpty(path string) (file *os.File, isNew bool, err error) {
	file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if !errors.Is(err, os.ErrExist) {
		return file, true, err
	}
	exists := err
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return nil, false, hint.Add(exists, "name a file that does not exist, or remove this one if its data is worthless")
	}
	file, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	if err := checkEmpty(file); err != nil {
		return nil, false, errors.Join(err, file.Close())
	}
	return file, false, nil
}

// checkEmpty returns an error that wraps EEXIST unless a file is one that openEmpty may return.
func checkEmpty(file *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", file.Name(), err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0:
		return fmt.Errorf("%s: %w", file.Name(), unix.EEXIST)
	case int(st.Uid) != os.Geteuid():
		err := fmt.Errorf("%s: is empty, and belongs to user %d: %w", file.Name(), st.Uid, unix.EEXIST)
		return hint.Add(err, "remove the file; it is made again")
	case st.Nlink > 1:
		err := fmt.Errorf("%s: is empty, and has %d names: %w", file.Name(), st.Nlink, unix.EEXIST)
		return hint.Add(err, "remove this name; the file is made again")
	}
	return nil
}

// isEmpty reports whether a path leads to a regular file of size 0.
func isEmpty(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}
