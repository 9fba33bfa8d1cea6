package mounthelper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/await"
	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// lockImage waits until no other helper mounts the image, so that the second of two finds the
// device of the first. The caller calls unlock when it has mounted. Without the directory of a
// server nothing can be mounted, and there is no lock.
func lockImage(ctx context.Context, image *os.File) (unlock func(), err error) {
	dir := filepath.Dir(client.DefaultSocket)
	path, err := lockPath(dir, image)
	if err != nil {
		return nil, err
	}
	sweepLocks(dir)
	for {
		lock, err := openLocked(ctx, path)
		if errors.Is(err, unix.ENOENT) {
			return func() {}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("wait for another mount: %w", err)
		}
		// The helper before this one has removed the file that it had locked.
		if flock.IsAt(lock, path) {
			return func() { _, _ = os.Remove(path), lock.Close() }, nil
		}
		_ = lock.Close()
	}
}

// sweepLocks removes the files of locks whose holders were killed.
func sweepLocks(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "mount-*.lock")) // the pattern is valid
	for _, path := range paths {
		lock, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // such as one that was released meanwhile
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && flock.IsAt(lock, path) {
			_ = os.Remove(path)
		}
		_ = lock.Close()
	}
}

// lockPath returns the path of the lock of an image.
func lockPath(dir string, image *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", image.Name(), err)
	}
	name := fmt.Sprintf("mount-%s-%d.lock", identity.MajMin(st.Dev), st.Ino)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		name = fmt.Sprintf("mount-%s.lock", identity.MajMin(st.Rdev))
	}
	return filepath.Join(dir, name), nil
}

// openLocked opens the file of a lock, or makes it, and locks it. It returns the cause when the context is done.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	conn, err := lock.SyscallConn()
	if err == nil {
		// A wait that was given up keeps the descriptor until it ends.
		_, err = await.Result(ctx, func() (none struct{}, err error) {
			closed := conn.Control(func(fd uintptr) {
				err = eintr.Repeat(func() error { return unix.Flock(int(fd), unix.LOCK_EX) })
			})
			return none, errors.Join(closed, err)
		})
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}
