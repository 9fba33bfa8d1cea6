package control

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, wire.Devices(s.Devices.Devices()))
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	var device loop.Status
	if err == nil {
		device, err = s.Devices.Device(id)
	}
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	_ = reply(w, http.StatusOK, wire.Device(&device))
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	force := r.URL.Query().Get("force")
	if err == nil && !slices.Contains([]string{"", "true", "false"}, force) {
		err = fmt.Errorf("force %q: not true or false: %w", force, unix.EINVAL)
	}
	if err == nil {
		s.changing.enter()
		defer s.changing.leave()
		force := force == "true"
		err = s.Devices.Remove(id, loop.DetachOptions{Force: force, DiskSequence: sequence})
		if force && errors.Is(err, unix.ENODEV) && s.RemoveWaiting != nil {
			err = s.RemoveWaiting(id, sequence)
		}
	}
	s.answer(w, err)
}

// keep makes a leased device stay, for ever or for a time.
func (s *Server) keep(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	if err == nil {
		err = s.keepFor(id, sequence, r.URL.Query().Get("for"))
	}
	s.answer(w, err)
}

// clear makes a device go when it is no longer in use.
func (s *Server) clear(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	if err == nil {
		s.changing.enter()
		defer s.changing.leave()
		err = s.Devices.Clear(id, sequence)
	}
	s.answer(w, err)
}

// keepFor makes a device stay for a time, or for ever if text is empty.
func (s *Server) keepFor(id uint32, sequence *uint64, text string) error {
	s.changing.enter()
	defer s.changing.leave()
	if text == "" {
		return s.Devices.Keep(id, sequence)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("for %q: not a time: %w", text, unix.EINVAL)
	}
	now, err := s.sequenceOf(id, sequence)
	if err != nil {
		return err
	}
	until := time.Now().Add(d)
	tie := s.leases.extend(device{id, now}, until)
	if tie == nil {
		return fmt.Errorf("%s: it has no lease: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	s.expireInTime(tie)
	return nil
}

// sequenceOf returns the sequence number of a device. It returns an error that wraps ENODEV if the
// server does not have the device, or if it has another one than wanted.
func (s *Server) sequenceOf(id uint32, wanted *uint64) (uint64, error) {
	for _, d := range s.Devices.Devices() {
		if d.ID == id && (wanted == nil || *wanted == d.DiskSequence) {
			return d.DiskSequence, nil
		}
	}
	return 0, fmt.Errorf("%s: not a device of this server: %w", ublk.BlockPath(id), unix.ENODEV)
}

// pathDevice returns the device that a request is about: its id, and the sequence number
// of its disk if the request has one.
func pathDevice(r *http.Request) (uint32, *uint64, error) {
	id, err := pathID(r)
	text := r.URL.Query().Get("diskseq")
	if err != nil || text == "" {
		return id, nil, err
	}
	sequence, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, nil, fmt.Errorf("diskseq %q: not a number: %w", text, unix.EINVAL)
	}
	return id, &sequence, nil
}

func pathID(r *http.Request) (uint32, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("device %q: not a number: %w", r.PathValue("id"), unix.EINVAL)
	}
	return uint32(id), nil
}
