// Package owndir makes, checks and locks a directory in which one program keeps its files.
package owndir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Make makes a directory to which only its owner has access, unless it exists. All users can look
// into the missing directories above it, such as /run, whatever the umask.
func Make(path string) error {
	if err := makeShared(filepath.Dir(path)); err != nil {
		return err
	}
	return os.MkdirAll(path, 0o700)
}

func makeShared(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return nil // the caller gets an error if it is not a directory
	}
	if err := makeShared(filepath.Dir(path)); err != nil {
		return err
	}
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil // another process has made it
	}
	if err != nil {
		return err
	}
	made, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(made.Chmod(0o755), made.Close())
}

// Check returns an error that wraps EPERM if another user owns a directory, or if it has one of the
// bits of mode that give other users access.
func Check(root *os.Root, mode uint32) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", root.Name(), err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&mode != 0 {
		return fmt.Errorf("owner %d, mode %o: other users have access: %w", st.Uid, st.Mode&0o7777, unix.EPERM)
	}
	return nil
}

// Lock makes a file in a directory and locks it, until the file is closed. It returns an error that
// wraps EAGAIN if another process has the lock.
func Lock(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process uses it: %w", err), f.Close())
	}
	return f, nil
}
