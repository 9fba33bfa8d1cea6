package driver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
)

// These are states of devices: the driver's states of a device that is served and of one whose server has
// ended, and those of devices that the server could not take over from the server before it.
const (
	live        = "live"
	quiesced    = "quiesced"
	waitsForKey = "waits for its key"
	unrecovered = "waits for a server"
)

// These bound the removal of a device in use. A probe by udev keeps a device in use for a
// moment, and neither the kernel nor the server reports its end.
const (
	removePatience = 10 * time.Second
	removePause    = 50 * time.Millisecond
)

// devices gets devices from ublk-loop serve. A device has no lease: a bind mount of its node
// does not use it, so a leased block volume would vanish under a pod.
type devices struct {
	server server

	mu   sync.Mutex // protects held
	held map[string]*client.Held
}

// of returns the server's device of a file that one device at most writes to, nil if there is
// none.
func (s *devices) of(ctx context.Context, image *os.File) (*client.Device, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		is, err := list[i].Uses(image)
		if err != nil {
			return nil, err
		}
		if is {
			return &list[i], nil
		}
	}
	return nil, nil
}

// list returns the devices of the server, and behind them those that it could not take over. The
// latter come from an earlier moment, so that a device that is taken over meanwhile is in the list.
func (s *devices) list(ctx context.Context) ([]client.Device, error) {
	unserved, err := s.unrecovered(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.server.devices(ctx)
	return append(list, unserved...), err
}

// unrecovered returns the devices that the server could not take over.
func (s *devices) unrecovered(ctx context.Context) ([]client.Device, error) {
	status, err := s.server.status(ctx)
	if err != nil {
		return nil, err
	}
	var list []client.Device
	for i := range status.Unrecovered {
		device := status.Unrecovered[i].AsDevice()
		device.State = unrecovered
		if status.Unrecovered[i].NeedsKey {
			device.State = waitsForKey
		}
		if device.MajMin, err = mounts.Number(device.Device); errors.Is(err, os.ErrNotExist) {
			continue // it has gone
		} else if err != nil {
			return nil, err
		}
		list = append(list, device)
	}
	return list, nil
}

// attach returns an open device of an image. It takes a device that exists, and replaces
// one that is dead. If a device is being removed, as a driver that was killed has asked for, attach
// waits for that. add makes a new device.
func (s *devices) attach(ctx context.Context, image *os.File, add func() (*client.Device, error)) (*client.Held, error) {
	found, end := context.WithTimeoutCause(ctx, removePatience, client.ErrLost)
	defer end()
	for {
		device, err := s.of(ctx, image)
		if err != nil {
			return nil, err
		}
		if device == nil || device.State != live {
			return s.replace(ctx, image, device, add)
		}
		held, err := s.server.open(found, device)
		if !errors.Is(err, client.ErrLost) || found.Err() != nil {
			return held, err
		}
		select {
		case <-found.Done():
		case <-time.After(removePause):
		}
	}
}

// replace returns an open new device of an image, in place of a dead one if there is one.
func (s *devices) replace(ctx context.Context, image *os.File, dead *client.Device, add func() (*client.Device, error)) (*client.Held, error) {
	if dead != nil {
		if err := s.remove(ctx, image); err != nil {
			return nil, err
		}
	}
	device, err := add()
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", image.Name(), err)
	}
	return s.server.open(ctx, device)
}

// remove removes the device of an image and returns when it is gone. It returns an error
// that wraps EBUSY if the device stays in use.
func (s *devices) remove(ctx context.Context, image *os.File) error {
	deadline := time.Now().Add(removePatience)
	for {
		device, err := s.of(ctx, image)
		if device == nil || err != nil {
			return err
		}
		err = s.server.remove(ctx, device)
		switch {
		case err == nil, client.HasStatus(err, http.StatusNotFound):
			return nil
		case !client.HasStatus(err, http.StatusConflict):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("remove %s: %w: %w", device.Device, unix.EBUSY, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(removePause):
		}
	}
}

// hold keeps the device of a staged block volume open. An unused device would go when the
// server ends, and its number to another volume.
func (s *devices) hold(id string, h *client.Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.held[id]; old != nil {
		old.Close()
	}
	s.held[id] = h
}

// release closes the device of a block volume.
func (s *devices) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[id]; h != nil {
		h.Close()
	}
	delete(s.held, id)
}

func (s *devices) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, h := range s.held {
		h.Close()
		delete(s.held, id)
	}
}
