package loop

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// forkedStatus is what a fork changes in the status of a device.
type forkedStatus struct {
	table string
	files []StatusFile
}

// startStatus returns the status of the device at its start, or since its last fork.
func (d *Device) startStatus() Status {
	s := d.status
	if f := d.forked.Load(); f != nil {
		s.Table, s.Files = f.table, f.files
	}
	return s
}

// forkPatience is how long a fork waits for requests in flight. Tests change it.
var forkPatience = 10 * time.Second

// Fork makes a device go on over a new store above its store, which is frozen: from then on it
// is only read. The new store is empty and has the same chunk size; file is from OpenTableDevice,
// or from NewFile. The files of unnamed get their names when the device can change over, and lose
// them again if it does not. Requests wait while the device changes over, for pause. The time
// does not depend on what the stores contain.
//
// Fork returns an error that wraps errors.ErrUnsupported for a device whose last table is not a
// persistent snapshot, EBUSY during a merge, and ETIMEDOUT if a request has no result in time.
// After an error with a pause of 0 the device goes on as before; otherwise only the mark in the
// old store is missing.
func (d *Device) Fork(file *os.File, unnamed ...*NewFile) (pause time.Duration, err error) {
	d.forking.Lock()
	defer d.forking.Unlock()
	if !d.merging.TryLock() {
		return 0, fmt.Errorf("fork %s: it is being merged: %w", d.Path(), unix.EBUSY)
	}
	defer d.merging.Unlock()
	if d.stack == nil {
		return 0, fmt.Errorf("fork of a device of one file: %w", errors.ErrUnsupported)
	}
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return 0, err
	}
	defer lock.Release()
	saved, err := readState(d.ID())
	if err != nil {
		return 0, err
	}
	if saved == nil {
		return 0, fmt.Errorf("fork %s: its state is lost: %w", d.Path(), unix.ENOENT)
	}
	return d.fork(saved, file, unnamed)
}

func (d *Device) fork(saved *state, file *os.File, unnamed []*NewFile) (pause time.Duration, err error) {
	text, err := onTop(saved.Config.Table, file.Name())
	if err != nil {
		return 0, err
	}
	tables, err := stack.Parse([]byte(text), false)
	if err != nil {
		return 0, err
	}
	growth, err := d.stack.Grow(tables, file, stackOptions(&saved.Config))
	if err != nil {
		return 0, err
	}
	if err = d.dev.OnThreads(growth.Register); err == nil {
		err = d.stack.Save() // so that little is left to save in the pause
	}
	if err == nil {
		saved.Config.Table = text
		saved.Files = append(saved.Files, stateFile{file.Name(), growth.Identity()})
		pause, err = d.changeOverTo(saved, growth, unnamed)
	}
	if err != nil {
		return 0, errors.Join(err, d.dev.OnThreads(growth.Unregister), growth.Close())
	}
	return pause, growth.Freeze()
}

// NewFile is a new file, which can have no name yet.
type NewFile = newfile.File

// changeOverTo gives the new files their names and changes over. After an error they have none.
func (d *Device) changeOverTo(saved *state, growth *stack.Growth, unnamed []*NewFile) (pause time.Duration, err error) {
	for i, file := range unnamed {
		if err = file.Link(); err != nil {
			unnamed = unnamed[:i]
			break
		}
	}
	if err == nil {
		pause, err = d.changeOver(saved, growth)
	}
	if err != nil {
		for _, file := range unnamed {
			err = errors.Join(err, file.Unlink())
		}
	}
	return pause, err
}

// changeOver makes the device serve the snapshot while its queues keep all requests.
func (d *Device) changeOver(saved *state, growth *stack.Growth) (pause time.Duration, err error) {
	begun := time.Now()
	resume, err := d.hold(forkPatience)
	if err != nil {
		return 0, err
	}
	defer func() {
		resume()
		pause = time.Since(begun)
	}()
	if err := d.stack.Save(); err != nil {
		return 0, err
	}
	// The state comes before the first write to the new store: a server that recovers the
	// device finds this write.
	if err := saved.write(); err != nil {
		return 0, err
	}
	growth.Apply()
	d.forked.Store(&forkedStatus{saved.Config.Table, statusFiles(saved.Files)})
	return 0, nil
}

// onTop returns the text of tables with a snapshot on top.
func onTop(text, store string) (string, error) {
	tables, err := stack.Parse([]byte(text), false)
	if err != nil {
		return "", err
	}
	defer tables.Close()
	return tables.OnTop(store)
}

// Fork is Device.Fork for one of the server's devices. It returns the status of the device
// afterwards.
func (s *Server) Fork(id uint32, sequence *uint64, file *os.File, unnamed ...*NewFile) (Status, error) {
	d, err := s.find(id, sequence)
	if err != nil {
		return Status{}, fmt.Errorf("fork %s: %w", ublk.BlockPath(id), err)
	}
	_, err = d.dev.Fork(file, unnamed...)
	status := d.dev.Status()
	s.mu.Lock()
	d.files = status.files()
	s.mu.Unlock()
	return status, err
}

// WithOtherStore returns the text of tables whose last one is a snapshot, with another store
// for it, and the devices of the text.
func WithOtherStore(text, store string) (changed string, devices []string, err error) {
	tables, err := stack.Parse([]byte(text), false)
	if err != nil {
		return "", nil, err
	}
	defer tables.Close()
	last, ok := tables.Tables[len(tables.Tables)-1].Lines[0].Target.(*table.Snapshot)
	if !ok {
		return "", nil, fmt.Errorf("the last table is not a snapshot: %w", errors.ErrUnsupported)
	}
	last.Store = store
	return tables.Text(), tables.Devices(), nil
}
