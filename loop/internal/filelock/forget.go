package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// The rings of a killed process end after the process, which causes no event. Acquire, Change, Release, Forget and
// Sweep look again after pauses within these limits, until patience has passed. A ring
// whose operations need longer keeps its file, which a later Release or Sweep removes.
const (
	firstPause   = time.Millisecond
	longestPause = 50 * time.Millisecond
	patience     = 2 * time.Second
)

// Forget removes the file of an object whose server was killed, unless it has a lock. It
// reports whether there was a file.
func Forget(dir string, object identity.File) (found bool, err error) {
	name := nameOf(object)
	if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
		return false, ignoreMissing(err)
	}
	return true, removeIdle(dir, func() ([]string, error) { return []string{name}, nil })
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes all files without locks. It is for a killed server whose object is not
// known, because it was killed before it had written a state, or because the state is
// lost.
func Sweep(dir string) error {
	return removeIdle(dir, func() ([]string, error) {
		entries, err := os.ReadDir(dir)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names, err
	})
}

// removeIdle removes those of some files that have no lock, and waits for rings that have
// a lock without a process.
func removeIdle(dir string, list func() ([]string, error)) error {
	return awaitRings(func() (ringsOnly bool, err error) {
		ringsOnly, err = removeAll(dir, turnPatience, list)
		return ringsOnly && err == nil, err
	})
}

// awaitRings calls try until no ring prevents what it does, and returns its last error. try has no turn between two calls.
func awaitRings(try func() (ringsOnly bool, err error)) error {
	deadline := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		ringsOnly, err := try()
		if !ringsOnly || !time.Now().Before(deadline) {
			return err
		}
		<-time.After(pause)
	}
}

// removeAll removes those of some files that have no lock. It reports whether one of the
// others has only locks of rings.
func removeAll(dir string, patience time.Duration, list func() ([]string, error)) (left bool, err error) {
	turn, err := takeTurnWithin(dir, patience)
	if err != nil {
		return false, err
	}
	defer func() { _ = turn.Close() }()
	defer func() { _ = os.Remove(dir) }() // fails if the directory has other files
	names, err := list()
	for _, name := range names {
		ringsOnly, removeErr := removeOne(filepath.Join(dir, name))
		left = left || ringsOnly
		err = errors.Join(err, removeErr)
	}
	return left, err
}

func removeOne(path string) (ringsOnly bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if held, err := isLocked(f, ofProcesses); err != nil || held {
		return false, err
	}
	return removeUnused(f, path)
}

// removeUnused removes an open file without locks, and reports whether it has some. The
// caller has the turn.
func removeUnused(f *os.File, path string) (used bool, err error) {
	used, err = isLocked(f, everything)
	if err != nil || used {
		return used, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("remove a lock: %w", err)
	}
	return false, nil
}
