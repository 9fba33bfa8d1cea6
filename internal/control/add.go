package control

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// add makes a device. One with a lease it keeps until the client is gone.
func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var req client.AddRequest
	if status, err := decode(w, r, &req); err != nil {
		s.fail(w, status, err)
		return
	}
	file, key, err := s.open(r, &req)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	defer func() { _ = file.Close() }()
	cfg := wire.Config(&req.Config)
	cfg.Key, cfg.Autoclear = key, req.Lease
	// Others cannot outlive a server without help, or not at all (loop.Config).
	if writers := cfg.Shared && !cfg.ReadOnly; cfg.OnCrash == "" && key == nil && !writers {
		cfg.OnCrash = s.OnCrash
	}
	if device, tie := s.create(w, r, file, &cfg); tie != nil {
		waitForEnd(w)
		s.endLease(device, tie)
	}
}

// waitForEnd waits until a client that has its answer is gone. The connection is
// read for that, as net/http looks for its end no more once more has come.
func waitForEnd(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // not of HTTP/1: there is no such client
	}
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// create makes a device and tells the client of it. It returns the lease that ties
// the device to the connection, nil for none.
func (s *Server) create(w http.ResponseWriter, r *http.Request, file *os.File, cfg *loop.Config) (device uint32, tie *lease) {
	s.changing.enter()
	defer s.changing.leave()
	made, err := s.Devices.Add(file, *cfg)
	if err != nil {
		s.fail(w, statusOf(err), s.Describe(err, file.Name(), cfg))
		return 0, nil
	}
	w.Header().Set("Location", client.DevicePath(made.ID))
	if cfg.Autoclear {
		// Before the client knows of it, and asks for more.
		c, _ := r.Context().Value(connKey{}).(*conn) // the handler has looked
		tie = s.leases.begin(made.ID, c.UnixConn, time.Time{})
	}
	if err := tell(w, &made); err != nil {
		// Nobody knows of it.
		if tie != nil {
			s.leases.end(made.ID, tie)
		}
		_ = s.Devices.Remove(made.ID, loop.DetachOptions{Force: true})
		return 0, nil
	}
	return made.ID, tie
}

// tell sends a client its device, at once: it returns an error where the client
// has gone.
func tell(w http.ResponseWriter, device *loop.Status) error {
	if err := reply(w, http.StatusCreated, wire.Device(device)); err != nil {
		return err
	}
	ctl := http.NewResponseController(w)
	return errors.Join(ctl.Flush(), ctl.SetWriteDeadline(time.Time{}))
}
