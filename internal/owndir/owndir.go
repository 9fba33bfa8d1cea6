// Package owndir checks and locks a directory in which one process keeps its files.
package owndir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

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
