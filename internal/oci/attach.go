package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// errTimeout ends an attach that takes too long.
var errTimeout = errors.New("not within attach_timeout")

// retryPause is the pause before another try with an image in use. The server does not
// report when an image becomes free.
const retryPause = 50 * time.Millisecond

// endTimeout bounds the time that a failed call waits for the removal of its device. The
// server removes the device in any case.
const endTimeout = 5 * time.Second

// attached is a device that is removed when this process ends, unless it is mounted then.
type attached struct {
	*client.Held
	number uint64
	fs     fileSystem
}

// attach asks the server for a device of the image, and detects its file system. It
// returns an error that wraps ENODEV if the device has gone meanwhile.
func (m *Maker) attach(image *os.File, r *rootfs) (*attached, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), m.Settings.AttachTimeout, errTimeout)
	defer cancel()
	held, err := m.acquire(ctx, image, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.image, err)
	}
	a := &attached{Held: held}
	if a.number, err = numberOf(held.Disk()); err == nil {
		a.fs, err = r.fsType.probe(ctx, held.Disk())
	}
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

// acquire asks the server for a device of the image. If the image is in use, its user may
// be a container that has just ended, whose device is about to go. acquire then tries
// again.
func (m *Maker) acquire(ctx context.Context, image *os.File, r *rootfs) (*client.Held, error) {
	c := client.New(m.Settings.Socket)
	var inUse error
	for {
		held, err := m.request(ctx, c, image, r)
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

// request asks the server for a device of the image once.
func (m *Maker) request(ctx context.Context, c *client.Client, image *os.File, r *rootfs) (*client.Held, error) {
	request, err := m.Settings.Request(image, &r.disk, m.Requester)
	if err != nil {
		return nil, err
	}
	defer request.Close()
	return c.Attach(ctx, request.Add, request.Files)
}

// end removes the device. It usually returns when the device is gone.
func (a *attached) end() {
	defer a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	_ = a.Remove(ctx)
}
