package snapshotter

import (
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

// errTimeout is why an attach ends that takes too long.
var errTimeout = errors.New("not within attach_timeout")

// errInUse is why a device is not removed.
var errInUse = errors.New("device is in use")

// retryPause is how soon a file or a device that is in use is tried again: the
// server tells nobody that one has become free.
const retryPause = 50 * time.Millisecond

// devices are those of snapshots. The server's list is what there is; here is
// what keeps them from going.
type devices struct {
	client   *client.Client
	settings *oci.Settings

	mu   sync.Mutex // protects what is below; not held during a request
	held map[string]*client.Held
}

func newDevices(s *oci.Settings) *devices {
	return &devices{client: client.New(s.Socket), settings: s, held: map[string]*client.Held{}}
}

// wanted is a device that a snapshot is to have.
type wanted struct {
	id       string // of the snapshot
	file     *os.File
	readOnly bool
	// own says that nobody else attaches the file: a device of it is this
	// snapshot's, whoever has made it.
	own bool
}

// attach returns a snapshot's device, which it has until release or close, and
// has open until one of these.
func (d *devices) attach(ctx context.Context, w *wanted) (*client.Held, error) {
	if h := d.lasting(ctx, w.id); h != nil {
		if h.Disk() != nil || h.Reopen(ctx) == nil {
			return h, nil
		}
		d.drop(w.id)
	}
	h, err := d.acquire(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", w.file.Name(), reworded(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[w.id] = h
	return h, nil
}

// lasting returns a snapshot's device if this process holds it still, nil if it does
// not: the server may have ended in between.
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

// drop lets a snapshot's device go.
func (d *devices) drop(id string) {
	d.mu.Lock()
	h := d.held[id]
	delete(d.held, id)
	d.mu.Unlock()
	if h != nil {
		h.Close()
	}
}

// close drops all.
func (d *devices) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, h := range d.held {
		h.Close()
		delete(d.held, id)
	}
}

// acquire makes a device. A file that is in use may be that of a device which
// is just going, or that of the snapshot's own, from before a restart. A device
// that goes before it is open is made again.
func (d *devices) acquire(ctx context.Context, w *wanted) (*client.Held, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, d.settings.AttachTimeout, errTimeout)
	defer cancel()
	req := client.AddRequest{File: w.file.Name(), Config: client.Config{ReadOnly: w.readOnly}}
	late := errTimeout
	for bounded.Err() == nil {
		h, err := d.client.Attach(bounded, req, client.Files{File: w.file})
		if !isConflict(err) && !errors.Is(err, client.ErrLost) {
			return h, err
		}
		late = err
		if w.own {
			if h, err = d.find(ctx, w); h != nil || err != nil {
				return h, err
			}
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
	return nil, late
}

// find looks for a device of a file, and keeps it by having it open. It returns
// nil for none.
func (d *devices) find(ctx context.Context, w *wanted) (*client.Held, error) {
	list, err := d.devicesOf(ctx, w.file)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ReadOnly != w.readOnly {
			continue
		}
		if h, err := d.client.Open(ctx, list[i]); err == nil {
			return h, nil
		}
	}
	return nil, nil
}

// devicesOf returns the server's devices of a file.
func (d *devices) devicesOf(ctx context.Context, file *os.File) ([]client.Device, error) {
	list, err := d.client.Devices(ctx)
	if err != nil {
		return nil, err
	}
	var devices []client.Device
	for i := range list {
		isOf, err := list[i].IsOf(file)
		if err != nil {
			return nil, err
		}
		if isOf {
			devices = append(devices, list[i])
		}
	}
	return devices, nil
}

// release removes a snapshot's device, and returns when it is gone. It returns an
// error that wraps errdefs.ErrFailedPrecondition for one that is in use for a
// given time from now on. What is held by this process remains so then.
func (d *devices) release(ctx context.Context, w *wanted, patience time.Duration) error {
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

// remove tries to remove a snapshot's device, and reports whether there is none
// any more.
func (d *devices) remove(ctx context.Context, w *wanted) (bool, error) {
	h := d.lasting(ctx, w.id)
	if h == nil || !h.IsLeased() {
		d.drop(w.id)
		return d.isGone(ctx, w)
	}
	// The number is this device's for as long as the lease lasts. What was mounted
	// by it meanwhile is so still.
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

// isGone reports whether the device of a snapshot that was once leased has gone,
// as it does by itself when nobody uses it. One that is read-only is of no
// interest: it changes nothing.
func (d *devices) isGone(ctx context.Context, w *wanted) (bool, error) {
	if !w.own || w.readOnly {
		return true, nil
	}
	list, err := d.devicesOf(ctx, w.file)
	return len(list) == 0, err
}

func isConflict(err error) bool { return client.HasStatus(err, http.StatusConflict) }

// reworded returns an error as containerd knows it.
func reworded(err error) error {
	switch {
	case errors.Is(err, client.ErrNoServer), errors.Is(err, errTimeout), errors.Is(err, client.ErrLost), isConflict(err):
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	return err
}

// pause waits until something can be tried again.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(retryPause):
		return nil
	}
}
