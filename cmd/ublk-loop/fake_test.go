package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// fakeDriver has devices and removes them. FileInode identifies a device's file.
type fakeDriver struct {
	devices  []client.Device
	features ublk.Features
	err      error             // error of every call
	refuse   map[uint32]error  // errors of Detach and Resize, by device
	usedBy   map[uint32]uint32 // device that has another one open, by the number of the other
	forced   []uint32
	asked    []askedFor      // for which Detach and Resize were called
	waits    map[uint32]bool // results of WaitsForServer, by device
	resized  []resized
	checked  []string // files of CheckFree, and whether they are only read
	busy     error    // result of CheckFree
	closed   bool
}

var _ driver = (*fakeDriver)(nil)

func (d *fakeDriver) List() ([]client.Device, error) { return slices.Clone(d.devices), d.err }

func (d *fakeDriver) Device(id uint32) (client.Device, error) {
	i := slices.IndexFunc(d.devices, func(s client.Device) bool { return s.ID == id })
	if i < 0 {
		return client.Device{}, unix.ENODEV
	}
	return d.devices[i], d.err
}

func (d *fakeDriver) IDs() ([]uint32, error) {
	var ids []uint32
	for i := range d.devices {
		ids = append(ids, d.devices[i].ID)
	}
	return ids, d.err
}

func (d *fakeDriver) Find(file *os.File) ([]client.Device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, err
	}
	var found []client.Device
	for _, s := range d.devices {
		if s.FileInode == st.Ino {
			found = append(found, s)
		}
	}
	return found, d.err
}

func (d *fakeDriver) WaitsForServer(_ *os.File, cfg *loop.Config) (bool, error) {
	return cfg.ID != nil && d.waits[*cfg.ID], d.err
}

func (d *fakeDriver) CheckFree(file *os.File, readOnly bool) error {
	d.checked = append(d.checked, fmt.Sprintf("%s %v", filepath.Base(file.Name()), readOnly))
	return d.busy
}

func (d *fakeDriver) Detach(id uint32, opts loop.DetachOptions) error {
	if d.err != nil {
		return d.err
	}
	d.asked = append(d.asked, newAskedFor(opts.DiskSequence, opts.Tag))
	if opts.Force {
		d.forced = append(d.forced, id)
	} else if err := d.refuse[id]; err != nil {
		return err
	} else if user, used := d.usedBy[id]; used && slices.Contains(d.ids(), user) {
		return loop.ErrInUse
	}
	d.devices = slices.DeleteFunc(d.devices, func(s client.Device) bool { return s.ID == id })
	return nil
}

// askedFor is a device for which the driver was called, with 0 for any.
type askedFor struct{ sequence, tag uint64 }

func newAskedFor(sequence *uint64, tag uint64) askedFor {
	if sequence == nil {
		return askedFor{0, tag}
	}
	return askedFor{*sequence, tag}
}

// resized records one resize.
type resized struct {
	id   uint32
	size uint64
}

func (d *fakeDriver) Resize(id uint32, opts loop.ResizeOptions) error {
	if err := d.refuse[id]; err != nil {
		return err
	}
	d.resized = append(d.resized, resized{id, opts.Size})
	d.asked = append(d.asked, newAskedFor(opts.DiskSequence, opts.Tag))
	return d.err
}

func (d *fakeDriver) Features() (ublk.Features, error) { return d.features, d.err }

func (d *fakeDriver) Close() error {
	d.closed = true
	return nil
}

func (d *fakeDriver) ids() []uint32 {
	ids := []uint32{}
	for _, s := range d.devices {
		ids = append(ids, s.ID)
	}
	return ids
}

// fakeServer becomes ready, or fails with err.
type fakeServer struct {
	status        client.Device
	err           error
	stayed, ended bool
}

var _ daemon.Pending = (*fakeServer)(nil)

func (s *fakeServer) Ready() (*client.Device, error) { return &s.status, s.err }

func (s *fakeServer) Keep() error {
	s.stayed = true
	return nil
}

func (s *fakeServer) Abandon() error {
	s.ended = true
	return nil
}

// failing returns a server that fails to become ready.
func failing(err error) *fakeServer { return &fakeServer{err: err} }

// bench is an app whose parts are fakes.
type bench struct {
	app
	drv         *fakeDriver
	srv         *fakeServer
	job         *daemon.Job // the last job that a server was started with
	key         string
	jobs        []*daemon.Job
	startErr    error                  // error of start
	byDevice    map[uint32]*fakeServer // servers that recover a device; srv serves the others
	out, errOut bytes.Buffer
}

// deviceOf returns the device that the job recovers, or maxID + 1.
func deviceOf(j *daemon.Job) uint32 {
	if j.Recover == nil {
		return maxID + 1
	}
	return *j.Recover
}

func newBench() *bench {
	b := &bench{drv: &fakeDriver{}, srv: &fakeServer{}}
	b.app.out, b.app.errOut = &b.out, &b.errOut
	b.app.open = func() (driver, error) {
		if b.drv == nil {
			return nil, fmt.Errorf("open /dev/ublk-control: %w", ublk.ErrNoDriver)
		}
		return b.drv, nil
	}
	b.app.load = func() error { return nil }
	b.app.start = func(_ context.Context, j *daemon.Job) (daemon.Pending, error) {
		b.jobs = append(b.jobs, j)
		if err := b.take(j); err != nil {
			return nil, err
		}
		if srv := b.byDevice[deviceOf(j)]; srv != nil {
			return srv, nil
		}
		return b.srv, b.startErr
	}
	b.app.become = b.take
	b.app.sandbox = func() []sandbox.Part {
		return []sandbox.Part{{Name: "one", Offered: true, Without: "a"}, {Name: "another", Without: "b"}}
	}
	return b
}

// take stores a job and its key, as a server would.
func (b *bench) take(j *daemon.Job) error {
	b.job = j
	if j.Key == nil {
		return nil
	}
	key, err := io.ReadAll(j.Key)
	b.key = string(key)
	return err
}

// check runs a command line and compares its exit status and all its output.
func (b *bench) check(t *testing.T, args []string, wantStatus int, wantOut, wantErr string) {
	t.Helper()
	b.out.Reset()
	b.errOut.Reset()
	status := b.run(args)
	if status != wantStatus {
		t.Errorf("%q: exit status %d, want %d", args, status, wantStatus)
	}
	if got := b.out.String(); got != wantOut {
		t.Errorf("%q: output\n%s\nwant\n%s", args, got, wantOut)
	}
	if got := b.errOut.String(); got != wantErr {
		t.Errorf("%q: errors\n%s\nwant\n%s", args, got, wantErr)
	}
}

// someDevices returns a live device, and a dead one of which only the driver's data is
// known.
func someDevices() []client.Device {
	return []client.Device{
		{
			ID: 0, Device: "/dev/ublkb0", MajMin: "259:0", State: "live", PID: 4711,
			File: "/srv/disk image", FileDevice: "8:1", FileInode: 1,
			Size: 64 << 20, Offset: 1 << 20, SizeLimit: 64 << 20, ReadOnly: true, DirectIO: true,
			BufferMode: "auto-register", PartScan: true, OnCrash: "reissue", Queues: 2, Depth: 128,
			Transfer: client.Transfer{
				Name: "aes-xts-plain64", KeyBytes: 64, SectorSize: 4096, IVOffset: 8, IVLargeSectors: true, AllowDiscards: true,
			},
			Limits: client.Limits{LogicalBlockSize: 4096, PhysicalBlockSize: 4096, MaxIOBytes: 1 << 20, FUA: true},
		},
		{
			ID: 12, Device: "/dev/ublkb12", State: "dead", Size: 1536, Queues: 1, Depth: 64,
			Limits: client.Limits{LogicalBlockSize: 512, PhysicalBlockSize: 512},
		},
	}
}
