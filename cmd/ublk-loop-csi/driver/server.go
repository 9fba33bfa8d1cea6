package driver

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
)

// errSilent ends a request that the server does not answer in time.
var errSilent = errors.New("ublk-loop serve does not answer")

// server is ublk-loop serve. Each request has a time limit of its own. The driver also makes requests without a
// caller who would limit them: when it undoes a failed call, starts, or merges layers.
type server struct {
	client *client.Client
	look   time.Duration // for a request that changes nothing
	change time.Duration // for another one
}

func newServer(socket string) server {
	return server{client: client.New(socket), look: 30 * time.Second, change: 2 * time.Minute}
}

// within calls a request with a time limit.
func within[T any](ctx context.Context, limit time.Duration, request func(context.Context) (T, error)) (T, error) {
	ctx, end := context.WithTimeoutCause(ctx, limit, errSilent)
	defer end()
	return request(ctx)
}

// changeBy is within for a request without a result.
func (s server) changeBy(ctx context.Context, request func(context.Context) error) error {
	_, err := within(ctx, s.change, func(ctx context.Context) (none struct{}, err error) { return none, request(ctx) })
	return err
}

func (s server) devices(ctx context.Context) ([]client.Device, error) {
	return within(ctx, s.look, s.client.Devices)
}

func (s server) status(ctx context.Context) (client.ServerStatus, error) {
	return within(ctx, s.look, s.client.Status)
}

// open returns an open device, which lasts until it is removed. A driver that was killed can have left a
// device that ends when it is no longer in use, as a block volume is for moments.
func (s server) open(ctx context.Context, device *client.Device) (*client.Held, error) {
	return within(ctx, s.change, func(ctx context.Context) (*client.Held, error) {
		held, err := s.client.Open(ctx, *device)
		if err != nil || !device.Autoclear {
			return held, err
		}
		if err = s.client.Keep(ctx, device); err == nil {
			return held, nil
		}
		held.Close()
		if client.HasStatus(err, http.StatusNotFound) {
			err = client.ErrLost
		}
		return nil, err
	})
}

// add makes a device that lasts until it is removed. If this process dies before keep, the
// server removes the device.
func (s server) add(ctx context.Context, req client.AddRequest, files client.Files) (*client.Device, error) {
	return within(ctx, s.change, func(ctx context.Context) (*client.Device, error) {
		lease, err := s.client.Add(ctx, req, files)
		if err != nil {
			return nil, err
		}
		defer lease.Close()
		if err := lease.Keep(ctx, 0); err != nil {
			return nil, err
		}
		return &lease.Device, nil
	})
}

func (s server) remove(ctx context.Context, device *client.Device) error {
	return s.changeBy(ctx, func(ctx context.Context) error { return s.client.Remove(ctx, device, false) })
}

func (s server) resize(ctx context.Context, device *client.Device, size int64) error {
	return s.changeBy(ctx, func(ctx context.Context) error { return s.client.Resize(ctx, device, uint64(size)) })
}

func (s server) giveKey(ctx context.Context, device *client.Device, key *os.File) error {
	return s.changeBy(ctx, func(ctx context.Context) error { return s.client.GiveKey(ctx, device, key) })
}

func (s server) fork(ctx context.Context, device *client.Device, store client.NewStore) error {
	return s.changeBy(ctx, func(ctx context.Context) error {
		_, err := s.client.Fork(ctx, device, store)
		return err
	})
}

func (s server) reload(ctx context.Context, device *client.Device, table string, files []*os.File) error {
	return s.changeBy(ctx, func(ctx context.Context) error {
		_, err := s.client.Reload(ctx, device, table, files)
		return err
	})
}
