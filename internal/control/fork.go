package control

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	stores, err := s.newStores(r)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	defer closeStores(stores)
	s.changing.enter()
	defer s.changing.leave()
	list, err := s.forkTo(id, sequence, stores)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	_ = reply(w, http.StatusCreated, list)
}

// newStores returns the stores of a request: those that came as descriptors, or those that their
// paths lead to. The second one is for another device.
func (s *Server) newStores(r *http.Request) (stores []*loop.NewFile, err error) {
	query := r.URL.Query()
	paths := []string{query.Get("store")}
	if other := query.Get("other"); other != "" {
		paths = append(paths, other)
	}
	c, _ := r.Context().Value(connKey{}).(*conn) // set for every request, see handler
	fds := c.take()
	if query.Has("descriptors") || len(fds) > 0 {
		stores, err = sentStores(paths, query.Get("descriptors"), fds)
		s.useOwnMountsOf(stores)
		return stores, err
	}
	s.changing.enter() // as openFile
	defer s.changing.leave()
	for _, path := range paths {
		if path == "" {
			err = fmt.Errorf("fork: no store: %w", unix.EINVAL)
		}
		var file *os.File
		if err == nil {
			file, err = s.OpenTableDevice(path)
		}
		if err != nil {
			closeStores(stores)
			return nil, err
		}
		stores = append(stores, &loop.NewFile{File: file})
	}
	return stores, nil
}

// useOwnMountsOf is useOwnMounts for stores that have their names.
func (s *Server) useOwnMountsOf(stores []*loop.NewFile) {
	for _, store := range stores {
		if store.Directory == nil {
			files := []*os.File{store.File}
			s.useOwnMounts(files, false)
			store.File = files[0]
		}
	}
}

// sentStores returns the stores that came as descriptors, or closes these.
func sentStores(paths []string, what string, fds []int) (stores []*loop.NewFile, err error) {
	relative := func(path string) bool { return !filepath.IsAbs(path) }
	kinds := strings.Split(what, ",")
	if slices.ContainsFunc(paths, relative) || len(kinds) != len(fds) || !announcesStores(kinds, len(paths)) {
		closeAll(fds)
		return nil, fmt.Errorf("stores %q with descriptors %q, of which %d came: %w", paths, kinds, len(fds), unix.EINVAL)
	}
	for i, fd := range fds {
		if kinds[i] == client.FileDescriptor {
			stores = append(stores, &loop.NewFile{File: os.NewFile(uintptr(fd), paths[len(stores)])})
		} else {
			last := stores[len(stores)-1]
			last.Directory = os.NewFile(uintptr(fd), filepath.Dir(last.File.Name()))
		}
	}
	return stores, nil
}

// announcesStores reports whether there is a file for each of n stores, each with at most one
// directory behind it.
func announcesStores(kinds []string, n int) bool {
	files := 0
	for i, kind := range kinds {
		switch {
		case kind == client.FileDescriptor:
			files++
		case kind != client.DirectoryDescriptor, i == 0, kinds[i-1] != client.FileDescriptor:
			return false
		}
	}
	return files == n
}

func closeStores(stores []*loop.NewFile) {
	for _, store := range stores {
		_ = store.Close()
	}
}

func (s *Server) forkTo(id uint32, sequence *uint64, stores []*loop.NewFile) (list []client.Device, err error) {
	if len(stores) > 1 {
		if err := s.checkSecond(id); err != nil {
			return nil, err
		}
	}
	status, err := s.Devices.Fork(id, sequence, stores[0].File, stores...)
	if err != nil {
		return nil, err
	}
	list = append(list, wire.Device(&status))
	if len(stores) < 2 || s.OneDevice {
		return list, nil
	}
	second, err := s.addOther(&list[0], stores[1].File)
	if err != nil {
		return nil, fmt.Errorf("%s has forked, but no second device was made: %w", status.Device, err)
	}
	return append(list, wire.Device(&second)), nil
}

// checkSecond returns an error if a device can fork, but no second device could be made.
func (s *Server) checkSecond(id uint32) error {
	status, err := s.Devices.Device(id)
	if err != nil || status.Table == "" { // Fork returns the error
		return nil
	}
	if err := loop.CheckSecond(status.Table); err != nil {
		return fmt.Errorf("fork %s: %w", status.Device, err)
	}
	return nil
}

// addOther makes a device of the tables of a device that has forked, with another store.
func (s *Server) addOther(of *client.Device, store *os.File) (loop.Status, error) {
	text, names, err := loop.WithOtherStore(of.Table, store.Name())
	if err != nil {
		return loop.Status{}, err
	}
	var files, opened []*os.File
	defer func() {
		for _, f := range opened {
			_ = f.Close()
		}
	}()
	for i, name := range names {
		if name == store.Name() {
			files = append(files, store)
			continue
		}
		file, err := s.openPart(of, i, name)
		if err != nil {
			return loop.Status{}, err
		}
		files, opened = append(files, file), append(opened, file)
	}
	cfg := loop.Config{Table: text, OnCrash: loop.OnCrash(of.OnCrash)}
	return s.Devices.AddTable(files, cfg)
}

// openPart opens the file with an index below the tables of a device. It returns an error that wraps
// ESTALE if the name leads to another file now.
func (s *Server) openPart(of *client.Device, index int, name string) (*os.File, error) {
	file, err := s.OpenTableDevice(name)
	if err != nil {
		return nil, err
	}
	if err := of.CheckPart(index, file); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
