package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// openFreed opens the file or disk when the last server, and the holder of a lease on the
// file, have released it, and locks a part of it. If files were passed, it takes them over
// instead. giveBack undoes that.
func openFreed(file *os.File, cfg *Config, locked filelock.Range, passed []Passed) (b *backing.Backing, giveBack func() error, err error) {
	deadline := time.Now().Add(backingTimeout)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		b, giveBack, err = openOrAdopt(file, cfg, locked, passed)
		switch {
		case err == nil && b.Size != cfg.SizeLimit:
			return nil, nil, errors.Join(fmt.Errorf("%s has become smaller: %w", b.Path, unix.EINVAL), giveBack())
		case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EAGAIN):
			return b, giveBack, err
		case time.Now().After(deadline):
			return nil, nil, hint.Add(err, "end the program that uses it, and recover again")
		}
		<-time.After(pause)
	}
}

func openOrAdopt(file *os.File, cfg *Config, locked filelock.Range, passed []Passed) (b *backing.Backing, giveBack func() error, err error) {
	o, err := cfg.backingOptions(file.Name())
	if err != nil {
		return nil, nil, err
	}
	o.Lock = locked
	if passed == nil {
		b, err = backing.Open(file, o)
		return b, func() error { return b.Close() }, err
	}
	b, err = backing.Adopt(passed[0], o)
	return b, func() error { b.Disown(); return nil }, err
}
