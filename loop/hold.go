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

// Hold makes the server's devices keep new requests, and returns when no operation on
// their files is running. resume makes the devices continue. If the process ends instead,
// the next server has nothing to wait for.
//
// The program that replaces this one queries the same files and disks, and the kernel
// does not end this program before they answer. Therefore Hold returns an error that
// wraps ETIMEDOUT and names the devices if a file or disk does not answer within
// patience. In this case the devices continue. No device keeps requests before all files
// have answered.
func (s *Server) Hold(patience time.Duration) (resume func(), err error) {
	devices := s.all()
	for _, d := range devices {
		if d.dev.stack != nil && d.dev.stack.IsTransient() {
			return nil, fmt.Errorf("%s: its store is transient, so that only this process has its changes: %w", d.dev.Path(), errors.ErrUnsupported)
		}
	}
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
		if err == nil && d.stack != nil {
			err = d.stack.Save()
		}
		return err
	})
	if err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// silent calls a function for all devices at once, and returns an error that names the
// devices for which the function fails.
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

// ask queries the file system about the file, as the next server does. A file system in
// user space may never answer. ask returns an error that wraps ETIMEDOUT after patience.
func (d *Device) ask(patience time.Duration) error {
	if !d.asking.TryLock() {
		return fmt.Errorf("an earlier query has no answer yet: %w", unix.ETIMEDOUT)
	}
	answer := make(chan error, 1)
	go func() { // ends with the answer
		defer d.asking.Unlock()
		answer <- d.storage.Ask()
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		return unix.ETIMEDOUT
	}
}
