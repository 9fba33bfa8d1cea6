package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/wire"
)

// leased is a device of a server of many, held by a lease until it stays.
type leased struct {
	ctx    context.Context // from interruptible
	client *client.Client
	lease  *client.Lease
	stay   time.Duration // at least, though nobody uses it; 0 for good
}

var _ server = (*leased)(nil)

// startServe is what to do where there is no server of many.
const startServe = "start ublk-loop serve, or the unit ublk-loop.socket"

// startSomewhere has the device served by the server of many devices, where
// there is one and it can, or else by a process of its own.
func startSomewhere(ctx context.Context, j *job) (server, error) {
	if j.Standalone || j.Recover != nil || j.log != nil {
		return startServer(ctx, j)
	}
	srv, err := startLeased(ctx, j, client.New(client.DefaultSocket))
	switch {
	case !errors.Is(err, client.ErrNoServer):
		return srv, err
	case j.Autoclear > 0:
		return nil, &hint.Error{Err: fmt.Errorf("autoclear: %w", err), Hint: startServe}
	}
	return startServer(ctx, j)
}

// startLeased asks a server of many for the device.
func startLeased(ctx context.Context, j *job, c *client.Client) (server, error) {
	req := client.AddRequest{File: j.Name, Config: wire.RequestConfig(&j.Config)}
	lease, err := c.Add(ctx, req, client.Files{File: j.file, Key: j.key})
	if err != nil {
		return nil, err
	}
	return &leased{ctx: ctx, client: c, lease: lease, stay: j.Autoclear}, nil
}

// Ready implements server.
func (s *leased) Ready() (*client.Device, error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	go func() { // until the lease ends, or this process
		<-s.lease.Ended()
		cancel(errServerEnded)
	}()
	device := s.lease.Device
	device.Autoclear = s.stay > 0 // once it stays
	return &device, openUsable(ctx, &device)
}

// Stay implements server.
func (s *leased) Stay() error {
	defer s.lease.Close()
	if err := s.lease.Keep(s.ctx, s.stay); err != nil {
		return fmt.Errorf("keep the device: %w", err)
	}
	return nil
}

// End implements server.
func (s *leased) End() error {
	defer s.lease.Close()
	err := s.client.Remove(context.WithoutCancel(s.ctx), s.lease.Device.ID, true)
	if errors.Is(err, client.ErrNoServer) {
		return errServerEnded
	}
	return err
}
