package control

import (
	"fmt"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/wire"
	"github.com/ublk-loop/ublk-loop/loop"
)

// fork makes a device go on over a new store. With the parameter other, a second device starts
// from the same point.
func (s *Server) fork(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	query := r.URL.Query()
	s.changing.enter()
	defer s.changing.leave()
	list, err := s.forkTo(id, sequence, query.Get("store"), query.Get("other"))
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	_ = reply(w, http.StatusCreated, list)
}

func (s *Server) forkTo(id uint32, sequence *uint64, store, other string) (list []client.Device, err error) {
	if store == "" {
		return nil, fmt.Errorf("fork: no store: %w", unix.EINVAL)
	}
	file, err := s.OpenTableDevice(store)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	status, err := s.Devices.Fork(id, sequence, file)
	if err != nil {
		return nil, err
	}
	list = append(list, wire.Device(&status))
	if other == "" {
		return list, nil
	}
	second, err := s.addOther(&status, other)
	if err != nil {
		return nil, fmt.Errorf("%s has forked, but no second device was made: %w", status.Device, err)
	}
	return append(list, wire.Device(&second)), nil
}

// addOther makes a device of the tables of a device that has forked, with another store.
func (s *Server) addOther(of *loop.Status, store string) (loop.Status, error) {
	text, devices, err := loop.WithOtherStore(of.Table, store)
	if err != nil {
		return loop.Status{}, err
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, device := range devices {
		file, err := s.OpenTableDevice(device)
		if err != nil {
			return loop.Status{}, err
		}
		files = append(files, file)
	}
	cfg := loop.Config{Table: text, OnCrash: loop.OnCrash(of.OnCrash)}
	return s.Devices.AddTable(files, cfg)
}
