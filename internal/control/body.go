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
	"github.com/ublk-loop/ublk-loop/internal/jsontext"
)

// maxBody is the maximum size of a request's body in bytes. A body holds little more than
// paths and the text of tables, whose characters JSON may write as two.
const maxBody = 4 << 20

// decode decodes a request's body. With an error it returns the HTTP status.
func decode(w http.ResponseWriter, r *http.Request, v any) (int, error) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value")
		}
	}
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	} else {
		answerBeforeBody(w)
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the request has more than %d bytes", maxBody)
	case err != nil:
		return http.StatusBadRequest, fmt.Errorf("read the request: %w", jsontext.Explain(err))
	}
	return 0, nil
}

// limitBody bounds the time for the body that a request announces. decode ends the limit.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// answerBeforeBody makes the server answer without the rest of the body, and then close the
// connection.
func answerBeforeBody(w http.ResponseWriter) { w.Header().Set("Connection", "close") }

// descriptors takes the descriptors that were sent with a request: those of the object's
// files, and that of the key or nil.
func descriptors(r *http.Request, req *client.AddRequest) (files []*os.File, key *os.File, err error) {
	c, _ := r.Context().Value(connKey{}).(*conn) // set for every request, see handler
	fds := c.take()
	if !announced(req, len(fds)) {
		closeAll(fds)
		return nil, nil, fmt.Errorf("file %q with descriptors %q, of which %d came: %w", req.File, req.Descriptors, len(fds), unix.EINVAL)
	}
	for i, what := range req.Descriptors {
		switch {
		case what == client.KeyDescriptor:
			key = os.NewFile(uintptr(fds[i]), "key")
		case req.Table == "":
			files = append(files, os.NewFile(uintptr(fds[i]), req.File))
		default:
			files = append(files, os.NewFile(uintptr(fds[i]), req.Files[len(files)].File))
		}
	}
	return files, key, nil
}

// announced reports whether a request announces the descriptors that came with it: at most one
// for the key, and one or none for File, or one for each of Files.
func announced(req *client.AddRequest, came int) bool {
	files, keys := 0, 0
	for _, what := range req.Descriptors {
		switch what {
		case client.FileDescriptor:
			files++
		case client.KeyDescriptor:
			keys++
		default:
			return false
		}
	}
	if req.Table != "" {
		relative := func(f client.TableFile) bool { return !filepath.IsAbs(f.File) }
		if req.File != "" || files != len(req.Files) || slices.ContainsFunc(req.Files, relative) {
			return false
		}
	} else if !filepath.IsAbs(req.File) || files > 1 || len(req.Files) > 0 {
		return false
	}
	return keys <= 1 && came == len(req.Descriptors)
}
