package snapshotter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// errTimeout ends an attach that takes too long.
var errTimeout = errors.New("not within attach_timeout")

// errInUse is the error of a device that cannot be removed because it is in use.
var errInUse = errors.New("device is in use")

// retryPause is the pause before another try with a file or device that is in use. The
// server does not report when either becomes free.
const retryPause = 50 * time.Millisecond

// devices holds the devices of snapshots. The server's list is authoritative; held keeps
// the leases.
type devices struct {
	client   *client.Client
	settings *oci.Settings

	mu   sync.Mutex // protects held; not held during a request
	held map[string]*client.Held
}

func newDevices(s *oci.Settings) *devices {
	return &devices{client: client.New(s.Socket), settings: s, held: map[string]*client.Held{}}
}

// wanted describes the device that a snapshot needs.
type wanted struct {
	id string // id of the snapshot
	// files are the layers of the snapshot (layers.files).
	files    []*os.File
	table    string // of the layers; empty for one file
	readOnly bool
	disk     *oci.Disk // of an image of the host; nil for the bytes of the file

	// own says that only this snapshot uses the last file. Any device of the files is then
	// the snapshot's, whichever process made it.
	own bool
}

// file returns the file with the latest changes.
func (w *wanted) file() *os.File { return w.files[len(w.files)-1] }

func (w *wanted) close() {
	for _, f := range w.files {
		_ = f.Close()
	}
}

// attach returns a snapshot's device. The snapshotter keeps the device leased and open
// until release or close.
func (d *devices) attach(ctx context.Context, w *wanted) (*client.Held, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.settings.AttachTimeout, errTimeout)
	defer cancel()
	if h := d.lasting(ctx, w.id); h != nil {
		if h.Disk() != nil || h.Reopen(ctx) == nil {
			return h, nil
		}
		d.drop(w.id)
	}
	h, err := d.acquire(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", w.file().Name(), reworded(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[w.id] = h
	return h, nil
}

// lasting returns a snapshot's device if this process still holds it, and nil otherwise.
// The server may have ended meanwhile.
func (d *devices) lasting(ctx context.Context, id string) *client.Held {
	d.mu.Lock()
	h := d.held[id]
	d.mu.Unlock()
	if h == nil || !h.IsLost(ctx) {
		return h
	}
	d.drop(id)
	return nil
}

// drop closes a snapshot's device.
func (d *devices) drop(id string) {
	d.mu.Lock()
	h := d.held[id]
	delete(d.held, id)
	d.mu.Unlock()
	if h != nil {
		h.Close()
	}
}

// close closes all devices.
func (d *devices) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, h := range d.held {
		h.Close()
		delete(d.held, id)
	}
}

// acquire makes a device. If the file is in use, its user may be a device that is about
// to go, or the snapshot's own device from before a restart. If a new device goes before
// it is open, acquire makes another.
func (d *devices) acquire(ctx context.Context, w *wanted) (*client.Held, error) {
	var late error
	for ctx.Err() == nil {
		h, err := d.request(ctx, w)
		if !isConflict(err) && !errors.Is(err, client.ErrLost) {
			return h, err
		}
		late = err
		if w.own {
			if h, err = d.find(ctx, w); h != nil || err != nil {
				return h, err
			}
		}
		_ = pause(ctx) // the condition of the loop tells
	}
	return nil, cmp.Or(late, context.Cause(ctx))
}

// request asks the server for a device once.
func (d *devices) request(ctx context.Context, w *wanted) (*client.Held, error) {
	if w.disk == nil {
		config := client.Config{ReadOnly: w.readOnly}
		if w.table != "" {
			return d.client.Attach(ctx, client.AddRequest{Table: w.table, Config: config}, client.Files{Table: w.files})
		}
		return d.client.Attach(ctx, client.AddRequest{File: w.file().Name(), Config: config}, client.Files{File: w.file()})
	}
	request, err := d.settings.Request(w.file(), w.disk, requester)
	if err != nil {
		return nil, fmt.Errorf("label %s*: %w: %w", labelPrefix, errdefs.ErrInvalidArgument, err)
	}
	defer request.Close()
	return d.client.Attach(ctx, request.Add, request.Files)
}

// find looks for a device of the files and keeps it by opening it. It returns nil if there
// is no device.
func (d *devices) find(ctx context.Context, w *wanted) (*client.Held, error) {
	list, err := d.devicesOf(ctx, w.file())
	if err != nil {
		return nil, err
	}
	for i := range list {
		// A parent's store is also below the devices of its children.
		if list[i].ReadOnly != w.readOnly || max(len(list[i].Files), 1) != len(w.files) {
			continue
		}
		if h, err := d.client.Open(ctx, list[i]); err == nil {
			return h, nil
		}
	}
	return nil, nil
}

// devicesOf returns the server's devices that use a file.
func (d *devices) devicesOf(ctx context.Context, file *os.File) ([]client.Device, error) {
	list, err := d.client.Devices(ctx)
	if err != nil {
		return nil, err
	}
	var devices []client.Device
	for i := range list {
		uses, err := list[i].Uses(file)
		if err != nil {
			return nil, err
		}
		if uses {
			devices = append(devices, list[i])
		}
	}
	return devices, nil
}

// removalTimeouts is how many times attach_timeout the server has to answer a removal, which ends only after the
// device's requests. containerd gives up a whole image if a commit fails.
const removalTimeouts = 6

// release removes a snapshot's device, and returns when it is gone. It returns an error
// that wraps errdefs.ErrFailedPrecondition if the device stays in use for the time
// patience. This process then still holds the device.
func (d *devices) release(ctx context.Context, w *wanted, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience+removalTimeouts*d.settings.AttachTimeout, errTimeout)
	defer cancel()
	deadline := time.Now().Add(patience)
	for {
		gone, err := d.remove(ctx, w)
		switch {
		case err != nil:
			return fmt.Errorf("detach snapshot %s: %w", w.id, reworded(err))
		case gone:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("detach snapshot %s: %w: %w", w.id, errInUse, errdefs.ErrFailedPrecondition)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// remove tries to remove a snapshot's device, and reports whether it is gone.
func (d *devices) remove(ctx context.Context, w *wanted) (bool, error) {
	h := d.lasting(ctx, w.id)
	if h == nil || !h.IsLeased() {
		d.drop(w.id)
		return d.isGone(ctx, w)
	}
	// The number belongs to this device while the lease lasts. A mount by the number is
	// therefore a mount of this device.
	err := h.Remove(ctx)
	switch {
	case isConflict(err):
		return false, nil
	case err != nil && !client.HasStatus(err, http.StatusNotFound):
		return false, err
	}
	d.drop(w.id)
	return true, nil
}

// isGone reports whether the device of a snapshot without a lease is gone. The server
// removes such a device when it is no longer in use. A read-only device does not matter,
// because it cannot change the file.
func (d *devices) isGone(ctx context.Context, w *wanted) (bool, error) {
	if !w.own || w.readOnly {
		return true, nil
	}
	list, err := d.devicesOf(ctx, w.file())
	return len(list) == 0, err
}

func isConflict(err error) bool { return client.HasStatus(err, http.StatusConflict) }

// reworded wraps the error with the one that containerd expects.
func reworded(err error) error {
	switch {
	case errors.Is(err, client.ErrNoServer), errors.Is(err, errTimeout), errors.Is(err, client.ErrLost), isConflict(err):
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return err
}

// pause waits for retryPause, or until the context is done.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(retryPause):
		return nil
	}
}
