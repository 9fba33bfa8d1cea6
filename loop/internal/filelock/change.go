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

// Changing calls do while no other process is in Changing for the same object. It has no turn meanwhile: a file system can be
// frozen, and only others that change this object wait for that, for a time. After do, its error is that of do: if the lock's
// file cannot be removed, the next change of the object or [Sweep] removes it.
func Changing(dir string, object identity.File, do func() error) error {
	return changingWithin(dir, object, turnPatience, do)
}

func changingWithin(dir string, object identity.File, patience time.Duration, do func() error) error {
	name := "change-" + nameOf(object)
	held, err := beginChange(dir, name, time.Now().Add(patience))
	if err != nil {
		return err
	}
	err = do()
	_ = held.Close()
	_, _ = removeAll(dir, removalPatience, func() ([]string, error) { return []string{name}, nil })
	return err
}

// removalPatience bounds the wait for a turn to remove the file of a lock that nothing needs.
const removalPatience = 100 * time.Millisecond

// beginChange locks a file of the directory. Closing the result ends that.
func beginChange(dir, name string, deadline time.Time) (*os.File, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		f, err := tryChange(dir, name, time.Until(deadline))
		if !errors.Is(err, unix.EBUSY) {
			return f, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("wait for another change of the file, whose file system may be frozen: %w", unix.ETIMEDOUT)
		}
		<-time.After(pause)
	}
}

// tryChange is beginChange with a wait only for the turn. It returns an error that wraps EBUSY if another process has locked the
// file.
func tryChange(dir, name string, patience time.Duration) (*os.File, error) {
	turn, err := takeTurnWithin(dir, patience)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turn.Close() }()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lock(f, everything, Exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
	}
	return f, nil
}
