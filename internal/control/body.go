package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// maxBody is the maximum size of a request's body in bytes. A body holds little more than
// a path.
const maxBody = 64 << 10

// decode decodes a request's body. With an error it returns the HTTP status.
func decode(w http.ResponseWriter, r *http.Request, v any) (int, error) {
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyTimeout))
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	_ = ctl.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the request has more than %d bytes", maxBody)
	case err != nil:
		return http.StatusBadRequest, fmt.Errorf("read the request: %w", err)
	}
	return 0, nil
}

// open returns the file of a request, and its key or nil.
func (s *Server) open(r *http.Request, req *client.AddRequest) (*os.File, *transfer.Secret, error) {
	received, err := descriptors(r, req)
	if err != nil {
		return nil, nil, err
	}
	file, f := received[client.FileDescriptor], received[client.KeyDescriptor]
	if f != nil {
		defer func() { _ = f.Close() }()
	}
	if file == nil {
		if file, err = s.Open(req.File); err != nil {
			return nil, nil, err
		}
	}
	if f == nil {
		return file, nil, nil
	}
	key, err := readKey(f)
	if err != nil {
		_ = file.Close()
		return nil, nil, err
	}
	return file, key, nil
}

// descriptors returns the descriptors that were sent with a request, by purpose.
func descriptors(r *http.Request, req *client.AddRequest) (map[string]*os.File, error) {
	c, _ := r.Context().Value(connKey{}).(*conn) // set for every request, see handler
	fds := c.take()
	valid := filepath.IsAbs(req.File) && len(fds) == len(req.Descriptors)
	for i, what := range req.Descriptors {
		known := what == client.FileDescriptor || what == client.KeyDescriptor
		valid = valid && known && !slices.Contains(req.Descriptors[:i], what)
	}
	if !valid {
		closeAll(fds)
		return nil, fmt.Errorf("file %q with descriptors %q, of which %d came: %w", req.File, req.Descriptors, len(fds), unix.EINVAL)
	}
	files := map[string]*os.File{}
	for i, what := range req.Descriptors {
		files[what] = os.NewFile(uintptr(fds[i]), req.File)
	}
	return files, nil
}
