package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // http.Server takes no other
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Devices is what a server serves: loop.Server, but for tests.
type Devices interface {
	Add(file *os.File, cfg loop.Config) (loop.Status, error)
	Keep(id uint32) error
	Release(id uint32)
	Remove(id uint32, opts loop.DetachOptions) error
	Devices() []loop.Status
	Stats() []loop.DeviceStats
}

// Server answers requests about devices.
type Server struct {
	// Devices are what the requests are about.
	Devices Devices
	// Open opens a file by its path, as loop.OpenPath does.
	Open func(path string) (*os.File, error)
	// OnCrash is what becomes of devices whose request does not say.
	OnCrash loop.OnCrash
	// Describe says what a failed request for a device was at.
	Describe func(err error, file string, cfg *loop.Config) error
	// Hint returns what can be done about an error, "" for nothing.
	Hint func(error) string
	// Status is what the server says of itself.
	Status func() ServerStatus
	// CanUpgrade returns why no other program can take this one's place.
	CanUpgrade func() error
	// Upgrade has one take it. It returns only if that can't be.
	Upgrade func() error
	// Done is called after each request, when its answer is on its way.
	Done func()

	leases   leases
	changing gate // inside is who changes devices
}

// How long a client may take for its part.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Second
	replyTimeout  = 10 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
)

// connKey is what a request's context has its conn under.
type connKey struct{}

// HTTP returns the server of the protocol, for Serve.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// Serve answers what comes by a listener of a unix socket, until h is closed.
func Serve(h *http.Server, l *net.UnixListener) error {
	err := h.Serve(&listener{UnixListener: l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/devices", s.add)
	mux.HandleFunc("GET /v1/devices", s.list)
	mux.HandleFunc("GET /v1/devices/{id}", s.get)
	mux.HandleFunc("DELETE /v1/devices/{id}", s.remove)
	mux.HandleFunc("POST /v1/devices/{id}/keep", s.keep)
	mux.HandleFunc("GET /v1/server", s.status)
	mux.HandleFunc("GET /v1/stats", s.stats)
	mux.HandleFunc("POST /v1/upgrade", s.upgrade)
	mux.HandleFunc("GET /metrics", s.metrics)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); !ok || !mayUse(c.uid) {
			s.fail(w, http.StatusForbidden, errors.New("only root may use this server"))
			return
		}
		mux.ServeHTTP(w, r)
		if s.Done != nil {
			s.Done()
		}
	})
}

// add makes a device. One with a lease it keeps until the client is gone.
func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var req AddRequest
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
	cfg := req.Config
	cfg.Key, cfg.Autoclear = key, req.Lease
	// Others cannot outlive a server without help, or not at all (loop.Config).
	if writers := cfg.Shared && !cfg.ReadOnly; cfg.OnCrash == "" && key == nil && !writers {
		cfg.OnCrash = s.OnCrash
	}
	if device, tie := s.make(w, r, file, &cfg); tie != nil {
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

// make makes a device and tells the client of it. It returns the lease that ties
// the device to the connection, nil for none.
func (s *Server) make(w http.ResponseWriter, r *http.Request, file *os.File, cfg *loop.Config) (device uint32, tie *lease) {
	s.changing.enter()
	defer s.changing.leave()
	made, err := s.Devices.Add(file, *cfg)
	if err != nil {
		s.fail(w, statusOf(err), s.Describe(err, file.Name(), cfg))
		return 0, nil
	}
	w.Header().Set("Location", devicePath(made.ID))
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

// Freeze waits until nobody changes devices, and lets nobody, until Thaw. It
// returns an error that wraps EBUSY where that takes longer than patience: a
// disk that hangs may hold up one device for ever, and must not hold up others.
func (s *Server) Freeze(patience time.Duration) error { return s.changing.close(patience) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.changing.open() }

// tell sends a client its device, at once: it returns an error where the client
// has gone.
func tell(w http.ResponseWriter, device *loop.Status) error {
	if err := reply(w, http.StatusCreated, device); err != nil {
		return err
	}
	ctl := http.NewResponseController(w)
	return errors.Join(ctl.Flush(), ctl.SetWriteDeadline(time.Time{}))
}

// decode reads a request's body.
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

// open returns the file of a request, and its key, nil for none.
func (s *Server) open(r *http.Request, req *AddRequest) (*os.File, *transfer.Secret, error) {
	received, err := descriptors(r, req)
	if err != nil {
		return nil, nil, err
	}
	file, f := received[fileDescriptor], received[keyDescriptor]
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
	key, err := transfer.ReadSecret(f, maxKey)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("read the key: %w", err)
	}
	return file, key, nil
}

// descriptors returns what has come with a request, by what it is for.
func descriptors(r *http.Request, req *AddRequest) (map[string]*os.File, error) {
	c, _ := r.Context().Value(connKey{}).(*conn) // the handler has looked
	fds := c.take()
	valid := filepath.IsAbs(req.File) && len(fds) == len(req.Descriptors)
	for i, what := range req.Descriptors {
		known := what == fileDescriptor || what == keyDescriptor
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

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, s.Devices.Devices())
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	for _, device := range s.Devices.Devices() {
		if device.ID == id {
			_ = reply(w, http.StatusOK, device)
			return
		}
	}
	s.fail(w, http.StatusNotFound, fmt.Errorf("%s: not a device of this server", ublk.BlockPath(id)))
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		s.changing.enter()
		defer s.changing.leave()
		err = s.Devices.Remove(id, loop.DetachOptions{Force: r.URL.Query().Get("force") == "true"})
	}
	s.answer(w, err)
}

// keep makes a leased device stay, for good or for a time.
func (s *Server) keep(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		err = s.keepFor(id, r.URL.Query().Get("for"))
	}
	s.answer(w, err)
}

// keepFor makes a device stay for a time, "" for good.
func (s *Server) keepFor(id uint32, text string) error {
	s.changing.enter()
	defer s.changing.leave()
	if text == "" {
		return s.Devices.Keep(id)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return fmt.Errorf("for %q: not a time: %w", text, unix.EINVAL)
	}
	until := time.Now().Add(d)
	tie := s.leases.extend(id, until)
	if tie == nil {
		return fmt.Errorf("%s: nobody holds a lease of it: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	s.expireAt(id, tie, until)
	return nil
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	_ = reply(w, http.StatusOK, s.Status())
}

func (s *Server) upgrade(w http.ResponseWriter, _ *http.Request) {
	if err := s.CanUpgrade(); err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	// The answer first: there may be nobody to give it later. Its end, by that
	// of the connection, tells the client that this program is no more.
	if reply(w, http.StatusAccepted, s.Status()) != nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	err := s.Upgrade()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTimeout))
	_ = json.NewEncoder(w).Encode(ErrorReply{Message: err.Error(), Hint: s.Hint(err)})
}

// answer says that something is done, or why it is not.
func (s *Server) answer(w http.ResponseWriter, err error) {
	if err != nil {
		s.fail(w, statusOf(err), err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func pathID(r *http.Request) (uint32, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("device %q: not a number: %w", r.PathValue("id"), unix.EINVAL)
	}
	return uint32(id), nil
}

// fail says why a request has failed.
func (s *Server) fail(w http.ResponseWriter, status int, err error) {
	_ = reply(w, status, ErrorReply{Message: err.Error(), Hint: s.Hint(err)})
}

// statusOf returns the status of HTTP that an error has.
func statusOf(err error) int {
	switch {
	case errors.Is(err, unix.ENODEV):
		return http.StatusNotFound
	case errors.Is(err, loop.ErrInUse), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EBUSY),
		errors.Is(err, ublk.ErrNotRecoverable):
		return http.StatusConflict
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EISDIR):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// reply answers with JSON, on a line.
func reply(w http.ResponseWriter, status int, v any) error {
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Now().Add(replyTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}
