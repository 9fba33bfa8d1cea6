package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
)

// leased is a device of a server of many, which a lease holds until Keep.
type leased struct {
	ctx    context.Context // done when the user interrupts, with the cause
	client *client.Client
	lease  *client.Lease
	stay   time.Duration // minimum time after Keep, even if the device is not in use; 0 for ever
}

var _ Pending = (*leased)(nil)

// startLeased asks a server of many for the device.
func startLeased(ctx context.Context, j *Job, c *client.Client) (Pending, error) {
	req := client.AddRequest{Table: j.Config.Table, Config: wire.RequestConfig(&j.Config)}
	if req.Table == "" {
		req.File = j.Name
	}
	lease, err := c.Add(ctx, req, client.Files{File: j.File, Key: j.Key, Table: j.Files})
	if err != nil {
		return nil, err
	}
	return &leased{ctx: ctx, client: c, lease: lease, stay: j.Autoclear}, nil
}

// Ready implements Pending.
func (s *leased) Ready() (*client.Device, error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	go func() { // until the lease or this process ends
		<-s.lease.Ended()
		cancel(errServerEnded)
	}()
	device := s.lease.Device
	device.Autoclear = s.stay > 0 // true once it is kept
	return &device, openUsable(ctx, &device)
}

// Keep implements Pending.
func (s *leased) Keep() error {
	defer s.lease.Close()
	if err := s.lease.Keep(s.ctx, s.stay); err != nil {
		return fmt.Errorf("keep the device: %w", err)
	}
	return nil
}

// Abandon implements Pending.
func (s *leased) Abandon() error {
	defer s.lease.Close()
	err := s.client.Remove(context.WithoutCancel(s.ctx), &s.lease.Device, true)
	if errors.Is(err, client.ErrNoServer) {
		return errServerEnded
	}
	return err
}
