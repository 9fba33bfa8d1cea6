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
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// forkedStatus is what Fork and Reload change in the status of a device.
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

// forkPatience is how long a fork waits for requests in flight, and syncPatience for a file that it writes to
// the medium before that. Tests change them.
var (
	forkPatience = 10 * time.Second
	syncPatience = time.Minute
)

// Fork puts a new store above the store of a device, while the device is used. From then on the old
// store is frozen: it is only read. The new store is empty and has the same chunk size. file is from
// OpenTableDevice, or from NewFile.
//
// A device whose table is one linear line from the start of a file, or one crypt line, has no store.
// It gets one above its file, which is frozen in the same way, and the new store has a chunk size of
// its own. A last table that is one crypt line stays on top, so the store has encrypted data.
//
// The files of unnamed get their names when the device can change over, and lose them again if it does
// not. Requests wait for pause, while the device changes over. The time does not depend on what the
// stores contain.
//
// Fork returns an error that wraps errors.ErrUnsupported for a device whose last table is neither a
// persistent snapshot nor such a line, EBUSY during a merge, and ETIMEDOUT if a request has no result
// within ten seconds. After an error with a pause of 0 the device goes on as before. After an error
// with another pause the device has its new store, and only the mark in the old store is missing.
func (d *Device) Fork(file *os.File, unnamed ...*NewFile) (pause time.Duration, err error) {
	err = d.withState("fork", func(saved *state) error {
		pause, err = d.fork(saved, file, unnamed)
		return err
	})
	return pause, err
}

// withState calls a function that changes the tables, with the saved state.
func (d *Device) withState(what string, change func(*state) error) error {
	d.forking.Lock()
	defer d.forking.Unlock()
	if !d.merging.TryLock() {
		return fmt.Errorf("%s %s: it is being merged: %w", what, d.Path(), unix.EBUSY)
	}
	defer d.merging.Unlock()
	if d.closed.Load() { // Close waits for the lock, and then closes the files
		return fmt.Errorf("%s %s: it has been removed: %w", what, d.Path(), unix.ENODEV)
	}
	if d.stack == nil {
		return fmt.Errorf("%s of a device of one file: %w", what, errors.ErrUnsupported)
	}
	lock, err := statefile.Acquire(d.ID())
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := d.now(); err != nil { // another process can remove a device that has ended
		return fmt.Errorf("%s: %w", what, err)
	}
	saved, err := readState(d.ID())
	if err != nil {
		return err
	}
	if saved == nil {
		return fmt.Errorf("%s %s: its state is lost: %w", what, d.Path(), unix.ENOENT)
	}
	return change(saved)
}

func (d *Device) fork(saved *state, file *os.File, unnamed []*NewFile) (pause time.Duration, err error) {
	if err := d.checkCloses(file); err != nil {
		return 0, err
	}
	params, err := d.dev.Params()
	if err != nil {
		return 0, err
	}
	growth, err := d.stack.Grow(file, params.Size>>transfer.SectorShift, stackOptions(&saved.Config))
	if err != nil {
		return 0, err
	}
	if err = d.register(growth); err == nil {
		err = inTime(&d.syncing, syncPatience, growth.Sync) // so that little is left to write in the pause
	}
	if err == nil {
		saved.Config.Table = growth.Text()
		saved.Files = append(saved.Files, stateFile{file.Name(), growth.Identity()})
		pause, err = d.changeOverTo(saved, changeOf{d, growth}, unnamed)
	}
	if err != nil {
		return 0, errors.Join(err, d.unregister(growth.Unregister), growth.Close())
	}
	return pause, growth.Freeze()
}

// register prepares the queues for a growth, and saves the stores, so that little is left to save in the
// pause.
func (d *Device) register(growth *stack.Growth) error {
	if d.apart != nil {
		return d.apart.grow(growth)
	}
	if err := d.dev.OnThreads(growth.Register); err != nil {
		return err
	}
	return d.stack.Save()
}

// registerReload prepares the queues for a reload.
func (d *Device) registerReload(r *stack.Reload) error {
	if d.apart != nil {
		return d.apart.reload(r)
	}
	return d.dev.OnThreads(r.Register)
}

// unregister undoes register or registerReload, also one that has failed. Each handler in this process
// calls a function for that.
func (d *Device) unregister(undo func(ublk.Handler) error) error {
	if d.apart != nil {
		return d.apart.ask(serving.Undo)
	}
	return d.dev.OnThreads(undo)
}

// NewFile is a new file, which can have no name yet.
type NewFile = newfile.File

// changeOverTo gives the new files their names and changes over. After an error they have none.
func (d *Device) changeOverTo(saved *state, to tableChange, unnamed []*NewFile) (pause time.Duration, err error) {
	for i, file := range unnamed {
		if err = file.Link(); err != nil {
			unnamed = unnamed[:i]
			break
		}
	}
	if err == nil {
		pause, err = d.changeOver(saved, to)
	}
	if err != nil {
		for _, file := range unnamed {
			err = errors.Join(err, file.Unlink())
		}
	}
	return pause, err
}

// Reload gives a device other tables that show the same data, such as after layers below its store
// were merged. All tables are persistent snapshots. The last one keeps its store, the only file that
// is written to. files are from OpenTableDevice, in the order of table.Stack.Devices. Requests wait
// while the device changes over. The files that the new tables do not have are closed.
//
// Reload returns an error that wraps errors.ErrUnsupported for other tables, EINVAL if the store or the
// size is another one, EBUSY during a merge or while an earlier query of a file has no answer, and
// ETIMEDOUT if a request has no result within ten seconds. After these the device has its old tables.
func (d *Device) Reload(text string, files []*os.File) error {
	return d.reloadWith(&Reloading{Table: text, Files: files})
}

// Reloading is the request for a reload.
type Reloading struct {
	Table string
	Files []*os.File
	// Replaces reports whether the request is to replace some tables. nil stands for any.
	Replaces func(table string) bool
}

func (d *Device) reloadWith(r *Reloading) error {
	err := d.withState("reload", func(saved *state) error {
		if r.Replaces != nil && !r.Replaces(d.Status().Table) {
			return fmt.Errorf("the device has got other tables since: %w", unix.ESTALE)
		}
		return d.reload(saved, r.Table, r.Files)
	})
	if err != nil {
		return fmt.Errorf("reload %s: %w", d.Path(), err)
	}
	return nil
}

func (d *Device) reload(saved *state, text string, files []*os.File) error {
	if !d.asking.TryLock() { // ask may use the files that will be closed
		return fmt.Errorf("a file has not answered a query: %w", unix.EBUSY)
	}
	defer d.asking.Unlock()
	if err := d.checkCloses(files...); err != nil {
		return err
	}
	tables, err := stack.Parse([]byte(text), false)
	if err != nil {
		return err
	}
	r, err := d.stack.Reload(tables, files, stackOptions(&saved.Config))
	if err != nil {
		return err
	}
	if err = d.registerReload(r); err == nil {
		saved.Config.Table, saved.Files = tables.Text(), nil
		for _, b := range r.Files() {
			saved.Files = append(saved.Files, stateFile{b.Path, b.Identity})
		}
		_, err = d.changeOver(saved, changeOf{d, r})
	}
	// These give up what is not served: the old files, or the new ones after an error.
	return errors.Join(err, d.unregister(r.Unregister), r.Close())
}

// Fork is Device.Fork for one of the server's devices. It returns the status of the device
// afterwards.
func (s *Server) Fork(id uint32, sequence *uint64, file *os.File, unnamed ...*NewFile) (Status, error) {
	return s.retable(id, sequence, "fork", func(d *Device) error {
		_, err := d.Fork(file, unnamed...)
		return err
	})
}

// Reload is Device.Reload for one of the server's devices. It returns the status of the device
// afterwards, and an error that wraps ESTALE if r is to replace other tables than those of the device.
func (s *Server) Reload(id uint32, sequence *uint64, r *Reloading) (Status, error) {
	return s.retable(id, sequence, "reload", func(d *Device) error { return d.reloadWith(r) })
}

// retable changes the tables of a device.
func (s *Server) retable(id uint32, sequence *uint64, what string, change func(*Device) error) (Status, error) {
	d, err := s.find(id, sequence)
	if err != nil {
		return Status{}, fmt.Errorf("%s %s: %w", what, ublk.BlockPath(id), err)
	}
	err = change(d.dev)
	status := d.dev.Status()
	s.mu.Lock()
	d.files = status.files()
	s.mu.Unlock()
	return status, err
}

// CheckSecond returns an error that wraps errors.ErrUnsupported if no second device can be made with
// WithOtherStore when a device of tables has forked.
func CheckSecond(text string) error {
	tables, err := stack.Parse([]byte(text), false)
	if err != nil {
		return err
	}
	defer tables.Close()
	if tables.Cover() != nil {
		return fmt.Errorf("a second device needs the key of the target crypt: %w", errors.ErrUnsupported)
	}
	return nil
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
