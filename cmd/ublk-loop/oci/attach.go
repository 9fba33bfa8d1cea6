package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// errTimeout is why an attach ends that takes too long.
var errTimeout = errors.New("not within attach_timeout")

// errLost is why an attach ends whose device somebody has removed: its number may
// be another's by now.
var errLost = fmt.Errorf("the new device has gone, or the server has ended: %w", unix.ENODEV)

// retryPause is how soon an image that is in use is tried again: the server
// tells nobody that one has become free.
const retryPause = 50 * time.Millisecond

// endTimeout bounds how long a failed call waits for the end of its device,
// which ends without it, too.
const endTimeout = 5 * time.Second

// attached is a device that goes with this process, unless it is mounted.
type attached struct {
	client *control.Client
	lease  *control.Lease
	// lost is closed when the lease has ended, or is known to be of a device that
	// has gone.
	lost <-chan struct{}
	// disk is the device, open until it is mounted: the driver gives no number
	// away whose disk is open, so what is mounted by the number is this one.
	disk *os.File
	fs   fileSystem
}

// attach has the server make a device of an image, and looks what is on it. An
// image that is in use may be that of a container that has just ended, whose
// device is still going. It returns an error that wraps ENODEV for a device that
// has gone meanwhile.
func (m *Maker) attach(image *os.File, r *rootfs) (*attached, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	timer := time.AfterFunc(m.Settings.AttachTimeout, func() { cancel(errTimeout) })
	defer timer.Stop() // then the lease lasts
	a := &attached{client: control.NewClient(m.Settings.Socket), lost: ctx.Done()}
	var err error
	if a.lease, err = a.add(ctx, image, r.options.readOnly); err != nil {
		return nil, err
	}
	go func() { // until the lease ends, or this process
		a.lease.Wait()
		cancel(errLost)
	}()
	if err = m.OpenDevice(ctx, a.lease.Device.Device); err == nil {
		err = a.open(ctx)
	}
	if errors.Is(err, errLost) {
		cancel(errLost)
	}
	if err == nil {
		a.fs, err = r.probe(a.disk)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		a.end()
		return nil, fmt.Errorf("%s: %w", r.image, err)
	}
	return a, nil
}

func (a *attached) add(ctx context.Context, image *os.File, readOnly bool) (*control.Lease, error) {
	req := control.AddRequest{File: image.Name(), Config: loop.Config{ReadOnly: readOnly}}
	late := fmt.Errorf("%s: %w", image.Name(), errTimeout)
	for {
		lease, err := a.client.Add(ctx, req, control.AddFiles{File: image})
		var refused *control.ServerError
		switch {
		case err == nil:
			return lease, nil
		case ctx.Err() != nil:
			return nil, late
		case !errors.As(err, &refused) || refused.Status != http.StatusConflict:
			return nil, err
		}
		late = err
		select {
		case <-ctx.Done():
			return nil, late
		case <-time.After(retryPause):
		}
	}
}

// open opens the device, and looks whether its number was still its own then: so
// it stays. The server says so, since to remove a device ends no lease.
func (a *attached) open(ctx context.Context) error {
	var err error
	if a.disk, err = os.Open(a.lease.Device.Device); err != nil {
		return err
	}
	now, err := a.client.Device(ctx, a.lease.Device.ID)
	var refused *control.ServerError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound, errors.Is(err, control.ErrNoServer):
		return errLost
	case err != nil:
		return err
	case !sameContent(&now, &a.lease.Device):
		return errLost
	}
	return nil
}

// sameContent reports whether two devices are of the same part of the same file,
// and can be written to alike.
func sameContent(a, b *loop.Status) bool {
	return a.FileDevice == b.FileDevice && a.FileInode == b.FileInode && a.FileIsDisk == b.FileIsDisk &&
		a.ReadOnly == b.ReadOnly && a.Offset == b.Offset && a.SizeLimit == b.SizeLimit && a.Transfer == b.Transfer
}

// probe looks what a device holds, and whether that is what is asked for.
func (r *rootfs) probe(device io.ReaderAt) (fileSystem, error) {
	fs, err := probe(device)
	if err == nil && r.fsType != "" && r.fsType != fs.kind {
		err = fmt.Errorf("holds %s, not %s", fs.kind, r.fsType)
	}
	return fs, err
}

// end removes the device, and returns when it is gone, in general. One that is
// lost is left to the server: its number may be another's.
func (a *attached) end() {
	defer a.lease.Close()
	_ = a.disk.Close() // nil, or closed already, is no matter
	select {
	case <-a.lost:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = a.client.Remove(ctx, a.lease.Device.ID, false)
}
