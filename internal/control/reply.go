package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// answer sends the result of a request.
func (s *Server) answer(w http.ResponseWriter, err error) {
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fail sends the error of a request.
func (s *Server) fail(w http.ResponseWriter, status int, err error) {
	_ = reply(w, status, s.errorReply(err))
}

// refuse answers a request for which there is no route. answer is that of package http, which is
// not in JSON: 404, or 405 with the methods that the path has.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, answer http.Handler) {
	status := headerOnly{ResponseWriter: w, status: http.StatusNotFound}
	answer.ServeHTTP(&status, r)
	if methods := w.Header().Get("Allow"); methods != "" {
		s.fail(w, status.status, fmt.Errorf("%s %s: the methods are %s", r.Method, r.URL.Path, methods))
		return
	}
	s.fail(w, status.status, fmt.Errorf("%s %s: no such path", r.Method, r.URL.Path))
}

// headerOnly keeps the status of an answer, and drops its body.
type headerOnly struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (h *headerOnly) WriteHeader(status int) { h.status = status }

// Write implements http.ResponseWriter.
func (h *headerOnly) Write(p []byte) (int, error) { return len(p), nil }

// errorReply returns an error in the terms of the protocol.
func (s *Server) errorReply(err error) client.ErrorReply {
	reply := client.ErrorReply{Message: rawname.Error(err)}
	template := rawname.Text(s.Hint(err))
	reply.Hint = hint.Render(template, protocolName)
	if hint.HasSettings(template) {
		reply.Template = template
	}
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		reply.Errno = int(errno)
	case errors.Is(err, errors.ErrUnsupported): // unlike an errno, it would be lost
		reply.Errno = int(unix.EOPNOTSUPP)
	}
	return reply
}

// protocolName returns the name of a setting in a request.
func protocolName(name, assigned string) string {
	switch name {
	case "key":
		return "the descriptor key"
	case "keyfile_size":
		return "a key of " + strings.TrimPrefix(assigned, "=") + " bytes"
	case "force":
		return "force=true"
	}
	return name + assigned
}

// statusOf returns the HTTP status for an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, unix.ENODEV):
		return http.StatusNotFound
	case errors.Is(err, loop.ErrInUse), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EBUSY),
		errors.Is(err, ublk.ErrNotRecoverable):
		return http.StatusConflict
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EISDIR), isTableError(err),
		errors.Is(err, unix.EKEYREJECTED), errors.Is(err, transfer.ErrKey), errors.Is(err, transfer.ErrTooLong):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// isTableError reports whether the text of a table is wrong, or asks for what is not served.
// table.ErrUnsupported is errors.ErrUnsupported, which also means that the device cannot do what the
// request asks for.
func isTableError(err error) bool {
	return errors.Is(err, table.ErrUnsupported) || errors.Is(err, table.ErrLimit) || errors.Is(err, table.ErrKeyInText)
}

// reply sends v as one line of JSON.
func reply(w http.ResponseWriter, status int, v any) error {
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Now().Add(replyTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}
