package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop/control"
	"github.com/ublk-loop/ublk-loop/loop"
)

// errTimeout is why an attach ends that takes too long.
var errTimeout = errors.New("not within attach_timeout")

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
	fs     fileSystem
}

// attach has the server make a device of an image, and looks what is on it. An
// image that is in use may be that of a container that has just ended, whose
// device is still going.
func (m *Maker) attach(image *os.File, r *rootfs) (*attached, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	timer := time.AfterFunc(m.Settings.AttachTimeout, func() { cancel(errTimeout) })
	defer timer.Stop() // then the lease lasts
	a := &attached{client: control.NewClient(m.Settings.Socket)}
	var err error
	if a.lease, err = a.add(ctx, image, r.options.readOnly); err != nil {
		return nil, err
	}
	device := a.lease.Device.Device
	if err = m.OpenDevice(ctx, device); err == nil {
		a.fs, err = r.probe(device)
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

// probe looks what a device holds, and whether that is what is asked for.
func (r *rootfs) probe(device string) (fileSystem, error) {
	f, err := os.Open(device)
	if err != nil {
		return fileSystem{}, err
	}
	defer func() { _ = f.Close() }()
	fs, err := probe(f)
	if err == nil && r.fsType != "" && r.fsType != fs.kind {
		err = fmt.Errorf("holds %s, not %s", fs.kind, r.fsType)
	}
	return fs, err
}

// end removes the device, and returns when it is gone, in general.
func (a *attached) end() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = a.client.Remove(ctx, a.lease.Device.ID, false)
	a.lease.Close()
}
