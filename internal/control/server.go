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
	// Hint returns what can be done about an error, with settings in braces as package
	// hint has them, or an empty text.
	Hint func(error) string
	// Status is what the server says of itself.
	Status func() client.ServerStatus
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
