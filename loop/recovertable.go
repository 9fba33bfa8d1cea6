package loop

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// RecoverTable is Recover for a device of tables. files are from OpenPath, in the order of
// Status.Files, and must be the same files and disks. opts.Key has the keys of all lines with
// the target crypt, one after another.
func RecoverTable(ctl *ublk.Control, id uint32, files []*os.File, opts RecoverOptions) (*Device, error) {
	return recoverTableOn(ctl, id, files, opts, nil)
}

func recoverTableOn(ctl *ublk.Control, id uint32, files []*os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	return recoverLocked(id, opts, func() (*Device, error) { return recoverTable(ctl, id, files, opts, shared) })
}

// recoverLocked recovers a device with a function, while it has the lock of the device's state.
// It closes opts.Key.
func recoverLocked(id uint32, opts RecoverOptions, by func() (*Device, error)) (*Device, error) {
	if opts.Key != nil {
		defer opts.Key.Close()
	}
	lock, err := statefile.Acquire(id)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	d, err := by()
	if err != nil {
		return nil, fmt.Errorf("recover %s: %w", ublk.BlockPath(id), err)
	}
	return d, nil
}

func recoverTable(ctl *ublk.Control, id uint32, files []*os.File, opts RecoverOptions, shared *threads) (*Device, error) {
	saved, err := recoverable(ctl, id, &opts)
	if err != nil {
		return nil, err
	}
	params, err := ctl.Params(id)
	if err == nil && opts.Passed != nil {
		files, err = saved.filesAmong(opts.Passed)
	}
	if err != nil {
		return nil, err
	}
	cfg := saved.Config
	cfg.Key = opts.Key
	target := newApartTarget(opts.Apart, &cfg)
	defer target.forgetKey()
	s, err := openFreedStack(files, &cfg, &stack.Options{Passed: opts.Passed, Described: target != nil}, params.Size)
	if err != nil {
		return nil, err
	}
	d := deviceOfStack(ctl, s, shared, target)
	d.inherit(saved, &params)
	d.status.Table = sizedTable(cfg.Table, params.Size)
	return d.recoverBy(s.GiveBack, func() error {
		if err := saved.checkStack(s, params.Size); err != nil {
			return err
		}
		if err := d.keepKey(opts.Key); err != nil {
			return err
		}
		if err := saved.replaceByStack(s); err != nil {
			return err
		}
		d.status.Files = statusFiles(saved.Files)
		return d.takeOver(ctl, saved, shared)
	})
}

// replaceByStack is replaceBy for a stack that is the device's.
func (s *state) replaceByStack(opened *stack.Stack) error {
	for _, f := range s.files() {
		if _, err := filelock.Forget(statefile.LockDir, f); err != nil {
			return err
		}
	}
	s.Files = stackFiles(opened) // a disk may have a new path and number
	return nil
}

// filesAmong returns the files of the device's tables, in order, from those that the last
// program has passed. It returns an error that wraps ESTALE if one is missing.
func (s *state) filesAmong(passed []Passed) (files []*os.File, err error) {
	objects := make([]identity.File, len(passed))
	for i := range passed {
		if objects[i], err = identity.Of(passed[i].File); err != nil {
			return nil, err
		}
	}
	for i := range s.Files {
		n := slices.IndexFunc(objects, s.Files[i].Object.Is)
		if n < 0 {
			return nil, fmt.Errorf("%s was not passed on: %w", s.Files[i].Path, unix.ESTALE)
		}
		files = append(files, passed[n].File)
	}
	return files, nil
}

// openFreedStack opens the files and disks when the last server has released them. It takes
// over those that were passed.
func openFreedStack(files []*os.File, cfg *Config, how *stack.Options, size uint64) (s *stack.Stack, err error) {
	err = untilFree(func() error {
		s, err = openStack(files, cfg, how, size)
		return err
	})
	return s, err
}

// checkStack returns an error if the files or the keys are not those of the device.
func (s *state) checkStack(opened *stack.Stack, size uint64) error {
	for i, b := range opened.Devices() {
		if i >= len(s.Files) || !b.Identity.Is(s.Files[i].Object) {
			return fmt.Errorf("%s is another file or disk than the device was made of: %w", b.Path, unix.ESTALE)
		}
	}
	switch {
	case opened.Size != size:
		return fmt.Errorf("tables of %d bytes for a device of %d: %w", opened.Size, size, unix.EINVAL)
	case opened.KeyCheck(checkSector) != s.KeyCheck:
		return fmt.Errorf("not the keys that the device was made with: %w", unix.EKEYREJECTED)
	}
	return nil
}
