package serving

import (
	"errors"

	"golang.org/x/sys/unix"
)

// This file changes the tables of a device: Grow or Reload, Apply during a Hold, and Undo.

// begin prepares a Grow or a Reload, which must have a description. It undoes one before that was given up, in
// case its Undo has not come. After an error it has closed the descriptors.
func (s *Served) begin(r *Request, isDescribed bool) error {
	err := s.undo()
	if !isDescribed {
		err = errors.Join(err, unix.EBADMSG)
	}
	if err != nil {
		return r.refuse(nil, err)
	}
	return nil
}

// grow carries out Grow.
func (s *Served) grow(r *Request) error {
	if err := s.begin(r, r.Growth != nil); err != nil {
		return err
	}
	g, err := s.stack.GrowFor(r.Growth, r.FDs)
	if err != nil {
		return err
	}
	s.growth = g
	if err = s.queues.OnThreads(g.Register); err == nil {
		err = s.stack.Save() // so that little is left to save in the Hold
	}
	if err != nil {
		return errors.Join(err, s.undo())
	}
	return nil
}

// change carries out Reload.
func (s *Served) change(r *Request) error {
	if err := s.begin(r, r.Tables != nil); err != nil {
		return err
	}
	reload, err := s.stack.ReloadFor(r.Tables, r.FDs)
	if err != nil {
		return err
	}
	s.reload = reload
	if err := s.queues.OnThreads(reload.Register); err != nil {
		return errors.Join(err, s.undo())
	}
	return nil
}

// apply carries out Apply.
func (s *stores) apply() error {
	switch {
	case s.resume == nil:
		return unix.EBADMSG
	case s.growth != nil:
		s.growth.Apply()
		s.growth = nil
	case s.reload != nil:
		s.reload.Apply()
	default:
		return unix.EBADMSG
	}
	return nil
}

// undo carries out Undo.
func (s *Served) undo() error {
	var err error
	if g := s.growth; g != nil {
		s.growth = nil
		err = errors.Join(s.queues.OnThreads(g.Unregister), g.Discard())
	}
	if r := s.reload; r != nil {
		s.reload = nil
		err = errors.Join(err, s.queues.OnThreads(r.Unregister), r.Discard())
	}
	return err
}
