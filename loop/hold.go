package loop

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// Hold makes the server's devices keep new requests, and returns when no operation on
// their files is running. resume makes the devices continue. If the process ends instead,
// the next server has nothing to wait for.
//
// The program that replaces this one queries the same files and disks, and the kernel
// does not end this program before they answer. Therefore Hold returns an error that
// wraps ETIMEDOUT and names the devices if a file or disk does not answer within
// patience, or if the records of a store cannot be saved within ten further seconds. In
// these cases the devices continue. No device keeps requests before all files have
// answered.
//
// Hold waits for devices that have ended until they are gone, and returns the same error if that takes longer than
// patience. The next program removes a device that ends later.
func (s *Server) Hold(patience time.Duration) (resume func(), err error) {
	devices := s.all()
	for _, d := range devices {
		if d.dev.stack != nil && d.dev.stack.IsTransient() {
			return nil, fmt.Errorf("%s: its store is transient, so that only this process has its changes: %w", d.dev.Path(), errors.ErrUnsupported)
		}
	}
	if err := onAll(devices, func(_ int, d *Device) error { return d.unlessDone(d.ask(patience)) }); err != nil {
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
	err = onAll(devices, func(i int, d *Device) error {
		r, err := d.hold(patience)
		resumes[i] = r
		if err == nil && d.stack != nil && d.apart == nil {
			err = inTime(&d.saving, savePatience, d.stack.Save)
		}
		return d.unlessDone(err)
	})
	if err == nil {
		err = awaitGone(devices, patience)
	}
	if err != nil {
		resume()
		return nil, err
	}
	return resume, nil
}

// unlessDone returns an error of a device that has not ended.
func (d *Device) unlessDone(err error) error {
	if d.isDone() {
		return nil
	}
	return err
}

// awaitGone waits for those of the devices that have ended, until they are gone. It returns an error that wraps
// ETIMEDOUT after patience.
func awaitGone(devices []*served, patience time.Duration) error {
	over := time.After(patience)
	for _, d := range devices {
		if !d.dev.isDone() {
			continue
		}
		select {
		case <-d.gone:
		case <-over:
			return fmt.Errorf("%s: it is being removed: %w", d.dev.Path(), unix.ETIMEDOUT)
		}
	}
	return nil
}

// hold makes the device keep new requests, and returns when no operation on its files is running.
// Only one caller at a time holds a device. hold returns an error that wraps ETIMEDOUT if it takes
// longer than patience.
func (d *Device) hold(patience time.Duration) (resume func(), err error) {
	deadline := time.Now().Add(patience)
	if !d.holding.LockWithin(patience) {
		return nil, fmt.Errorf("hold %s: something else keeps its requests: %w", d.Path(), unix.ETIMEDOUT)
	}
	patience = time.Until(deadline)
	var r func()
	if d.apart != nil {
		r, err = d.apart.hold(d.dev, patience)
	} else {
		r, err = d.dev.Hold(patience)
	}
	if err != nil {
		d.holding.Unlock()
		return nil, err
	}
	return func() { r(); d.holding.Unlock() }, nil
}

// save makes the stores durable.
func (d *Device) save() error {
	if d.apart != nil {
		return d.apart.ask(serving.Save)
	}
	return d.stack.Save()
}

// tableChange is what a device changes over to.
type tableChange interface {
	// Sync makes durable what no flush of the device goes to after Apply.
	Sync() error
	Apply()
}

// changeOf is the change of a device, which another process may serve.
type changeOf struct {
	device *Device
	change tableChange
}

// Sync implements tableChange.
func (c changeOf) Sync() error { return c.change.Sync() }

// Apply makes the device serve the new tables.
func (c changeOf) Apply() {
	if c.device.apart != nil {
		c.device.apart.apply()
	}
	c.change.Apply()
}

// changeOver makes the device serve other tables while its queues keep all requests.
func (d *Device) changeOver(saved *state, to tableChange) (pause time.Duration, err error) {
	begun := time.Now()
	resume, err := d.hold(forkPatience)
	if err != nil {
		return 0, err
	}
	defer func() {
		resume()
		pause = time.Since(begun)
	}()
	if err := inTime(&d.saving, forkPatience, d.save); err != nil {
		return 0, err
	}
	if err := inTime(&d.syncing, forkPatience, to.Sync); err != nil {
		return 0, err
	}
	// The state comes before the first write to a new store: a server that recovers the
	// device finds this write.
	if err := saved.write(); err != nil {
		return 0, err
	}
	to.Apply()
	d.forked.Store(&forkedStatus{saved.Config.Table, statusFiles(saved.Files)})
	return 0, nil
}

// onAll calls a function for all devices at once, with the number of each in the list, and returns an
// error that names the devices for which the function fails.
func onAll(devices []*served, f func(i int, d *Device) error) error {
	type result struct {
		path string
		err  error
	}
	results := make(chan result, len(devices))
	for i, d := range devices {
		go func() { results <- result{d.dev.Path(), f(i, d.dev)} }()
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
	names, err := strings.Join(paths, ", "), errors.Join(errs...)
	if !errors.Is(err, unix.ETIMEDOUT) {
		return fmt.Errorf("%s: %w", names, err)
	}
	err = fmt.Errorf("%s: its file or disk does not answer: %w", names, err)
	return hint.Add(err, "try again when it does, or remove the device first")
}

// ask queries the file system about the file, as the next server does. A file system in
// user space may never answer. ask returns an error that wraps ETIMEDOUT after patience.
func (d *Device) ask(patience time.Duration) error {
	return inTime(&d.asking, patience, d.storage.Ask)
}

// patientMutex is a mutex whose holder may wait for a disk, so that others wait for a limited time. The zero value is
// unlocked.
type patientMutex struct {
	once sync.Once
	held chan struct{} // has a value while the mutex is locked
}

func (m *patientMutex) channel() chan struct{} {
	m.once.Do(func() { m.held = make(chan struct{}, 1) })
	return m.held
}

// TryLock locks the mutex, and reports whether it was unlocked.
func (m *patientMutex) TryLock() bool {
	select {
	case m.channel() <- struct{}{}:
		return true
	default:
		return false
	}
}

// LockWithin locks the mutex, and reports whether it could within a time.
func (m *patientMutex) LockWithin(patience time.Duration) bool {
	if m.TryLock() {
		return true
	}
	select {
	case m.channel() <- struct{}{}:
		return true
	case <-time.After(patience):
		return false
	}
}

// Unlock unlocks the mutex, which is locked.
func (m *patientMutex) Unlock() { <-m.channel() }

// inTime calls a function that a file or disk may keep from returning, and returns an error that wraps
// ETIMEDOUT after patience. It holds the lock until the function returns. Other calls fail meanwhile.
func inTime(lock *sync.Mutex, patience time.Duration, f func() error) error {
	if !lock.TryLock() {
		return fmt.Errorf("an earlier query has no answer yet: %w", unix.ETIMEDOUT)
	}
	answer := make(chan error, 1)
	go func() { // ends with the answer
		defer lock.Unlock()
		answer <- f()
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		return unix.ETIMEDOUT
	}
}
