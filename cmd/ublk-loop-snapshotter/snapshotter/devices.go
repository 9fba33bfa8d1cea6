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
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/oci"
	"github.com/ublk-loop/ublk-loop/loop"
)

// errTimeout is why an attach ends that takes too long.
var errTimeout = errors.New("not within attach_timeout")

// errLost is why an attach ends whose device somebody removes each time.
var errLost = fmt.Errorf("the new device has gone, or the server has ended: %w", unix.ENODEV)

// retryPause is how soon a file or a device that is in use is tried again: the
// server tells nobody that one has become free.
const retryPause = 50 * time.Millisecond

// devices are those of snapshots. The server's list is what there is; here is
// what keeps them from going.
type devices struct {
	client   *control.Client
	settings *oci.Settings

	mu   sync.Mutex // protects what is below; not held during a request
	held map[string]*hold
}

func newDevices(s *oci.Settings) *devices {
	return &devices{client: control.NewClient(s.Socket), settings: s, held: map[string]*hold{}}
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
func (d *devices) attach(ctx context.Context, w *wanted) (*hold, error) {
	if h := d.hold(ctx, w.id); h != nil {
		if h.pin != nil || h.keepOpen(ctx, d.client) {
			return h, nil
		}
		d.drop(w.id)
	}
	h, err := d.acquire(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", w.file.Name(), worded(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[w.id] = h
	return h, nil
}

// hold returns what keeps a snapshot's device, nil where nothing does any more:
// the server may have ended in between.
func (d *devices) hold(ctx context.Context, id string) *hold {
	d.mu.Lock()
	h := d.held[id]
	d.mu.Unlock()
	if h == nil || h.lasts(ctx, d.client) {
		return h
	}
	d.drop(id)
	return nil
}

// drop ends what keeps a snapshot's device.
func (d *devices) drop(id string) {
	d.mu.Lock()
	h := d.held[id]
	delete(d.held, id)
	d.mu.Unlock()
	if h != nil {
		h.end()
	}
}

// close drops all.
func (d *devices) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, h := range d.held {
		h.end()
		delete(d.held, id)
	}
}

// acquire makes a device. A file that is in use may be that of a device which
// is just going, or that of the snapshot's own, from before a restart. A device
// that goes before it is open is made again.
func (d *devices) acquire(ctx context.Context, w *wanted) (*hold, error) {
	late := errTimeout
	for deadline := time.Now().Add(d.settings.AttachTimeout); time.Now().Before(deadline); {
		h, err := d.lease(ctx, w, deadline)
		if err == nil && !h.keepOpen(ctx, d.client) {
			h.end()
			err = errLost
		}
		if !isConflict(err) && !errors.Is(err, errLost) {
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

// lease has the server make a device. The lease outlasts the request.
func (d *devices) lease(ctx context.Context, w *wanted, deadline time.Time) (*hold, error) {
	same, err := sameFile(w.file)
	if err != nil {
		return nil, err
	}
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer stop()
	timer := time.AfterFunc(time.Until(deadline), func() { cancel(errTimeout) })
	defer timer.Stop()
	req := control.AddRequest{File: w.file.Name(), Config: loop.Config{ReadOnly: w.readOnly}}
	lease, err := d.client.Add(lasting, req, control.AddFiles{File: w.file})
	if err == nil && lasting.Err() != nil {
		lease.Close()
		err = lasting.Err()
	}
	if err != nil {
		if lasting.Err() != nil {
			err = context.Cause(lasting)
		}
		cancel(nil)
		return nil, err
	}
	return newLeaseHold(lease, cancel, same), nil
}

// find looks for a device of a file, and keeps it by having it open. It returns
// nil for none.
func (d *devices) find(ctx context.Context, w *wanted) (*hold, error) {
	list, err := d.client.Devices(ctx)
	if err != nil {
		return nil, err
	}
	same, err := sameFile(w.file)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].ReadOnly != w.readOnly || !same(&list[i]) {
			continue
		}
		h := &hold{device: list[i], same: same}
		if h.keepOpen(ctx, d.client) {
			return h, nil
		}
		h.end()
	}
	return nil, nil
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
			return fmt.Errorf("detach snapshot %s: %w", w.id, worded(err))
		case gone:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("detach snapshot %s: %w: %w", w.id, loop.ErrInUse, errdefs.ErrFailedPrecondition)
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// remove tries to remove a snapshot's device, and reports whether there is none
// any more.
func (d *devices) remove(ctx context.Context, w *wanted) (bool, error) {
	h := d.hold(ctx, w.id)
	if h == nil || h.lease == nil {
		d.drop(w.id)
		return d.isGone(ctx, w)
	}
	// The number is this device's for as long as the lease lasts. What was mounted
	// by it meanwhile is so still.
	h.closePin()
	err := d.client.Remove(ctx, h.device.ID, false)
	switch {
	case isConflict(err):
		return false, nil
	case err != nil && !hasStatus(err, http.StatusNotFound):
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
	list, err := d.client.Devices(ctx)
	if err != nil {
		return false, err
	}
	same, err := sameFile(w.file)
	if err != nil {
		return false, err
	}
	for i := range list {
		if same(&list[i]) {
			return false, nil
		}
	}
	return true, nil
}

func isConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

func hasStatus(err error, status int) bool {
	var refused *control.ServerError
	return errors.As(err, &refused) && refused.Status == status
}

// worded returns an error as containerd knows it.
func worded(err error) error {
	switch {
	case errors.Is(err, control.ErrNoServer), errors.Is(err, errTimeout), errors.Is(err, errLost), isConflict(err):
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
