// Package controltest has a server of fake devices, for the tests of its clients.
package controltest

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop"
)

// Devices is a driver with few device numbers. The device nodes are files, which the test
// makes.
type Devices struct {
	nodes []string

	mu      sync.Mutex // protects the fields below
	devices []*loop.Status
	removed []loop.Status
	inUse   bool
	asked   func(look int)
	looks   int
	forks   func(id uint32, store *os.File) (loop.Status, error)

	calls sync.WaitGroup // running calls of asked
}

// NewDevices returns a driver without devices. It has a device number for each node.
func NewDevices(nodes ...string) *Devices {
	return &Devices{nodes: nodes, devices: make([]*loop.Status, len(nodes))}
}

// Add implements control.Devices. It returns EBUSY if all numbers are taken.
func (d *Devices) Add(file *os.File, cfg loop.Config) (loop.Status, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return loop.Status{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := slices.Index(d.devices, nil)
	if id < 0 {
		return loop.Status{}, unix.EBUSY
	}
	d.devices[id] = &loop.Status{
		ID: uint32(id), Device: d.nodes[id], ReadOnly: cfg.ReadOnly,
		FileDevice: identity.MajMin(st.Dev), FileInode: st.Ino,
	}
	return *d.devices[id], nil
}

// AddTable implements control.Devices. There are no devices of tables.
func (*Devices) AddTable([]*os.File, loop.Config) (loop.Status, error) {
	return loop.Status{}, errors.ErrUnsupported
}

// Fork implements control.Devices. Without OnFork there are no devices of tables.
func (d *Devices) Fork(id uint32, _ *uint64, store *os.File, _ ...*loop.NewFile) (loop.Status, error) {
	d.mu.Lock()
	forks := d.forks
	d.mu.Unlock()
	if forks == nil {
		return loop.Status{}, errors.ErrUnsupported
	}
	return forks(id, store)
}

// OnFork sets a function that carries out Fork.
func (d *Devices) OnFork(forks func(id uint32, store *os.File) (loop.Status, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forks = forks
}

// Reload implements control.Devices. There are no devices of tables.
func (*Devices) Reload(uint32, *uint64, *loop.Reloading) (loop.Status, error) {
	return loop.Status{}, errors.ErrUnsupported
}

// Remove implements control.Devices. It accepts removals by a client only, not those of a
// server that ends while it answers.
func (d *Devices) Remove(id uint32, opts loop.DetachOptions) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case opts.Force || d.devices[id] == nil:
		return unix.ENODEV
	case d.inUse:
		return loop.ErrInUse
	}
	d.removed = append(d.removed, *d.devices[id])
	d.devices[id] = nil
	return nil
}

// Device implements control.Devices.
func (d *Devices) Device(id uint32) (loop.Status, error) {
	d.look()
	d.mu.Lock()
	defer d.mu.Unlock()
	if int(id) >= len(d.devices) || d.devices[id] == nil {
		return loop.Status{}, unix.ENODEV
	}
	return *d.devices[id], nil
}

// Devices implements control.Devices.
func (d *Devices) Devices() []loop.Status {
	d.look()
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []loop.Status
	for _, s := range d.devices {
		if s != nil {
			list = append(list, *s)
		}
	}
	return list
}

// Clear implements control.Devices.
func (*Devices) Clear(uint32, *uint64) error { return nil }

// Release implements control.Devices.
func (*Devices) Release(uint32, *uint64) {}

// Resize implements control.Devices. It accepts every size.
func (*Devices) Resize(uint32, loop.ResizeOptions) error { return nil }

// Merge implements control.Devices. No device has a store.
func (*Devices) Merge(context.Context, uint32, *uint64) (uint64, error) { return 0, unix.EINVAL }

// Keep implements control.Devices.
func (d *Devices) Keep(id uint32, _ *uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.devices[id] == nil {
		return unix.ENODEV
	}
	kept := *d.devices[id]
	kept.Autoclear = false
	d.devices[id] = &kept
	return nil
}

// Stats implements control.Devices.
func (*Devices) Stats() []loop.DeviceStats { return nil }

// Become gives a number to another device, or to none.
func (d *Devices) Become(id uint32, device *loop.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.devices[id] = device
}

// SetInUse makes all further calls of Remove fail, because the devices are in use.
func (d *Devices) SetInUse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse = true
}

// Removed returns the removed devices in order.
func (d *Devices) Removed() []loop.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.removed)
}

// OnLook sets a function that is called each time when a client asks for the devices, with
// the number of the look, before the answer.
func (d *Devices) OnLook(asked func(look int)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = asked
}

// Wait waits until no call of OnLook's function is running.
func (d *Devices) Wait() { d.calls.Wait() }

// look calls asked without holding the mutex.
func (d *Devices) look() {
	d.mu.Lock()
	d.looks++
	look, asked := d.looks, d.asked
	d.calls.Add(1)
	d.mu.Unlock()
	defer d.calls.Done()
	if asked != nil {
		asked(look)
	}
}
