package loop

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// Hold makes the server's devices keep the requests that come, and returns when no
// operation on their files is running. Resume lets them go on. If the process ends instead,
// the next server has nothing to wait for.
//
// The program that takes the place of this one asks the same files and disks, and the kernel
// does not end this one before they answer. So Hold returns an error that wraps ETIMEDOUT,
// and names the devices, if a file or disk does not answer within patience. The devices have
// gone on then; until files have answered, none of them waits.
func (s *Server) Hold(patience time.Duration) (resume func(), err error) {
	devices := s.all()
	if err := silent(devices, func(d *Device) error { return d.ask(patience) }); err != nil {
		return nil, err
	}
	resumes := make([]func(), len(devices))
	resume = func() {
		for _, r := range resumes {
			if r != nil {
				r()
			}
		}
	}
	err = silent(devices, func(d *Device) error {
		r, err := d.dev.Hold(patience)
		resumes[slices.IndexFunc(devices, func(s *served) bool { return s.dev == d })] = r
		return err
	})
	if err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// silent calls a function for all devices at once, and returns an error that names those
// for which it does not return nil.
func silent(devices []*served, f func(*Device) error) error {
	type result struct {
		path string
		err  error
	}
	results := make(chan result, len(devices))
	for _, d := range devices {
		go func() { results <- result{d.dev.Path(), f(d.dev)} }()
	}
	var paths []string
	var errs []error
	for range devices {
		if r := <-results; r.err != nil {
			paths, errs = append(paths, r.path), append(errs, r.err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	slices.Sort(paths)
	err := fmt.Errorf("%s: its file or disk does not answer: %w", strings.Join(paths, ", "), errors.Join(errs...))
	return hint.Add(err, "try again when it does, or remove the device first")
}

// ask asks the file system for the file, as the next server does. A file system in user
// space may not answer. It returns an error that wraps ETIMEDOUT after patience.
func (d *Device) ask(patience time.Duration) error {
	if !d.asking.TryLock() {
		return fmt.Errorf("it has not since the last time: %w", unix.ETIMEDOUT)
	}
	answer := make(chan error, 1)
	go func() { // ends with the answer
		defer d.asking.Unlock()
		answer <- d.b.Ask()
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		return unix.ETIMEDOUT
	}
}
