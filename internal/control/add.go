package control

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// add makes a device. If the device has a lease, add keeps it until the client has gone.
func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var req client.AddRequest
	if status, err := decode(w, r, &req); err != nil {
		s.fail(w, status, err)
		return
	}
	o, err := s.object(r, &req)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	defer o.close()
	cfg := wire.Config(&req.Config)
	cfg.Table, cfg.Key, cfg.Autoclear = o.table, o.key, req.Lease
	// The default does not apply to devices with a key, which need help to outlive a
	// server, nor to files with other writers, whose devices cannot outlive it
	// (loop.Config).
	if writers := cfg.Shared && !cfg.ReadOnly; cfg.OnCrash == "" && o.key == nil && !writers {
		cfg.OnCrash = s.OnCrash
	}
	if tie := s.create(w, r, o, &cfg); tie != nil {
		waitForEnd(w)
		s.endLease(tie)
	}
}

// waitForEnd waits until a client that has got its answer closes the connection. It reads
// the connection itself, because net/http stops watching for the end once the client
// sends more data.
func waitForEnd(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // only clients of HTTP/1 have leases
	}
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// create makes a device and sends it to the client. It returns the lease that ties the
// device to the connection, or nil.
func (s *Server) create(w http.ResponseWriter, r *http.Request, o *object, cfg *loop.Config) (tie *lease) {
	s.changing.enter()
	defer s.changing.leave()
	made, err := o.add(s.Devices, cfg)
	if err != nil {
		s.fail(w, statusOf(err), s.Describe(err, o.name, cfg))
		return nil
	}
	w.Header().Set("Location", client.DevicePath(made.ID))
	if cfg.Autoclear {
		// The lease must exist before the client knows of the device and sends further
		// requests.
		c, _ := r.Context().Value(connKey{}).(*conn) // set for every request, see handler
		tie = s.leases.begin(device{made.ID, made.DiskSequence}, c.UnixConn, time.Time{})
	}
	if err := tell(w, &made); err != nil {
		// The client does not know of the device.
		if tie != nil {
			s.leases.end(tie)
		}
		_ = s.Devices.Remove(made.ID, loop.DetachOptions{Force: true, DiskSequence: &made.DiskSequence})
		return nil
	}
	return tie
}

// tell sends a device to the client at once. It returns an error if the client has gone.
func tell(w http.ResponseWriter, device *loop.Status) error {
	if err := reply(w, http.StatusCreated, wire.Device(device)); err != nil {
		return err
	}
	ctl := http.NewResponseController(w)
	return errors.Join(ctl.Flush(), ctl.SetWriteDeadline(time.Time{}))
}
