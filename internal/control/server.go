package control

import (
	"context"
	"errors"
	"io"
	"log" //nolint:depguard // http.Server takes no other
	"net"
	"net/http"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Devices is the part of loop.Server that this package needs. Tests have another implementation.
type Devices interface {
	Add(file *os.File, cfg loop.Config) (loop.Status, error)
	AddTable(files []*os.File, cfg loop.Config) (loop.Status, error)
	Keep(id uint32, sequence *uint64) error
	Clear(id uint32, sequence *uint64) error
	Release(id uint32, sequence *uint64)
	Remove(id uint32, opts loop.DetachOptions) error
	Resize(id uint32, opts loop.ResizeOptions) error
	Merge(ctx context.Context, id uint32, sequence *uint64) (chunks uint64, err error)
	Fork(id uint32, sequence *uint64, store *os.File, unnamed ...*loop.NewFile) (loop.Status, error)
	Reload(id uint32, sequence *uint64, r *loop.Reloading) (loop.Status, error)
	Device(id uint32) (loop.Status, error)
	Devices() []loop.Status
	Stats() []loop.DeviceStats
}

// Server answers requests about devices.
type Server struct {
	// Devices are the served devices.
	Devices Devices
	// Open opens a file by its path, as loop.OpenPath does.
	Open func(path string) (*os.File, error)
	// OpenCached opens a file by its path without waiting for a file system, as loop.OpenCachedPathIn does.
	OpenCached func(path string) (*os.File, error)
	// OpenTableDevice opens a device of a table, as loop.OpenTableDeviceIn does.
	OpenTableDevice func(device string) (*os.File, error)
	// OnCrash is the default for devices whose request does not set it.
	OnCrash loop.OnCrash
	// Describe adds the operation and its object to the error of a failed request for a
	// device. file is empty for a device of tables.
	Describe func(err error, file string, cfg *loop.Config) error
	// Hint returns the hint for an error, or an empty text. The hint has settings in
	// braces, as in package hint.
	Hint func(error) string
	// Status returns the status of the server itself.
	Status func() client.ServerStatus
	// CanUpgrade returns an error if no other program can replace this one.
	CanUpgrade func() error
	// Upgrade replaces this program. It returns only an error.
	Upgrade func() error
	// OneDevice says that the server adds no devices. A fork then gives the second store its
	// name, and the client makes the second device.
	OneDevice bool
	// GiveKey takes over a device that waits for its key, which GiveKey closes. It returns an
	// error that wraps ENODEV if the device does not wait.
	GiveKey func(id uint32, sequence *uint64, key *transfer.Secret) error
	// RemoveWaiting removes a device that waits for its key, even if it is in use. It returns
	// an error that wraps ENODEV if the device does not wait.
	RemoveWaiting func(id uint32, sequence *uint64) error
	// Done is called after each request, when its answer has been sent.
	Done func()

	leases   leases
	changing gate // entered by requests that change devices
}

// These limit the time and the size of a client's requests.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 10 * time.Second
	replyTimeout  = 10 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
)

// connKey is the key of the conn in a request's context.
type connKey struct{}

// HTTP returns the server of the protocol, for Serve.
func (s *Server) HTTP() *http.Server { return s.http(s.muxOf(s.routes())) }

// StoreHTTP is HTTP for a process of a single device, which only answers requests about its store.
func (s *Server) StoreHTTP() *http.Server { return s.http(s.muxOf(s.storeRoutes())) }

func (s *Server) http(mux *http.ServeMux) *http.Server {
	return &http.Server{
		Handler:           s.handler(mux),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// Serve answers the connections of a unix listener until h is closed.
func Serve(h *http.Server, l *net.UnixListener) error {
	err := h.Serve(&listener{UnixListener: l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// handler limits a request, and reports its end.
func (s *Server) handler(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limitBody(w, r)
		if answer, pattern := mux.Handler(r); pattern == "" {
			s.refuse(w, r, answer)
		} else {
			mux.ServeHTTP(w, r)
		}
		if s.Done != nil {
			s.Done()
		}
	})
}
