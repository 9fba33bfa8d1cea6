package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
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
	*client.Held
	fs fileSystem
}

// attach has the server make a device of an image, and looks what is on it. It returns
// an error that wraps ENODEV for a device that has gone meanwhile.
func (m *Maker) attach(image *os.File, r *rootfs) (*attached, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), m.Settings.AttachTimeout, errTimeout)
	defer cancel()
	held, err := m.acquire(ctx, image, r.options.readOnly)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.image, err)
	}
	a := &attached{Held: held}
	a.fs, err = r.probe(held.Disk())
	switch {
	case held.LeaseHasEnded():
		err = client.ErrLost
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	if err != nil {
		a.end()
		return nil, fmt.Errorf("%s: %w", r.image, err)
	}
	return a, nil
}

// acquire attaches an image. One that is in use may be the image of a container that
// has just ended, whose device is still going.
func (m *Maker) acquire(ctx context.Context, image *os.File, readOnly bool) (*client.Held, error) {
	c := client.New(m.Settings.Socket)
	req := client.AddRequest{File: image.Name(), Config: client.Config{ReadOnly: readOnly}}
	var inUse error
	for {
		held, err := c.Attach(ctx, req, client.Files{File: image})
		switch {
		case err == nil:
			return held, nil
		case ctx.Err() != nil && inUse != nil:
			return nil, inUse
		case !client.HasStatus(err, http.StatusConflict):
			return nil, err
		}
		inUse = err
		select {
		case <-ctx.Done():
			return nil, inUse
		case <-time.After(retryPause):
		}
	}
}

// probe looks what a device holds, and whether that is what is asked for.
func (r *rootfs) probe(device io.ReaderAt) (fileSystem, error) {
	fs, err := probe(device)
	if err == nil && r.fsType != "" && r.fsType != fs.kind {
		err = fmt.Errorf("holds %s, not %s", fs.kind, r.fsType)
	}
	return fs, err
}

// end removes the device, and returns when it is gone, in general.
func (a *attached) end() {
	defer a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = a.Remove(ctx)
}
