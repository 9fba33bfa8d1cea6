package control

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// resize gives a device a new size, by default that of its file.
func (s *Server) resize(w http.ResponseWriter, r *http.Request) {
	id, sequence, err := pathDevice(r)
	if err == nil {
		err = s.resizeTo(id, sequence, r.URL.Query().Get("size"))
	}
	if errors.Is(err, ublk.ErrNotSupported) {
		s.fail(w, http.StatusNotImplemented, err)
		return
	}
	s.answer(w, err)
}

// resizeTo gives a device a number of bytes, or the size of its file if text is empty.
func (s *Server) resizeTo(id uint32, sequence *uint64, text string) error {
	opts := loop.ResizeOptions{DiskSequence: sequence}
	if text != "" {
		var err error
		if opts.Size, err = strconv.ParseUint(text, 10, 64); err != nil || opts.Size == 0 {
			return fmt.Errorf("size %q: not a number of bytes: %w", text, unix.EINVAL)
		}
	}
	s.changing.enter()
	defer s.changing.leave()
	return s.Devices.Resize(id, opts)
}
