package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
)

// ErrNoServer is returned when nobody listens at a socket.
var ErrNoServer = errors.New("no server")

// Client asks a server, by a connection for each request.
type Client struct {
	socket string
}

// NewClient returns a client of the server at a socket.
func NewClient(socket string) *Client { return &Client{socket} }

// ServerError is a server's own error.
type ServerError struct {
	Status int // of HTTP
	ErrorReply
}

// Error implements error.
func (e *ServerError) Error() string { return e.Message }

// AddFiles are what goes to the server with an AddRequest.
type AddFiles struct {
	File *os.File // from loop.OpenPath
	Key  *os.File // to be read to its end, nil for none
}

// Lease is a device that is tied to a connection.
type Lease struct {
	Device loop.Status
	client *Client
	body   io.ReadCloser
	cancel context.CancelFunc
}

// Add asks for a device with a lease. It returns an error that wraps
// ErrNoServer where there is none.
func (c *Client) Add(ctx context.Context, req AddRequest, files AddFiles) (*Lease, error) {
	req.Lease = true
	req.Descriptors = []string{fileDescriptor}
	sent := []*os.File{files.File}
	if files.Key != nil {
		req.Descriptors = append(req.Descriptors, keyDescriptor)
		sent = append(sent, files.Key)
	}
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.send(ctx, http.MethodPost, "/v1/devices", req, sent)
	if errors.Is(err, io.EOF) && files.Key == nil {
		// The program has made place for another before it came to this, or has
		// crashed: a device with a lease is not left by that.
		resp, err = c.send(ctx, http.MethodPost, "/v1/devices", req, sent)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l := &Lease{client: c, body: resp.Body, cancel: cancel}
	if err := readAnswer(json.NewDecoder(resp.Body), &l.Device); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Wait waits until the server has ended the lease, or Close has.
func (l *Lease) Wait() { _, _ = io.Copy(io.Discard, l.body) }

// Keep makes the device stay, whatever becomes of the lease: for some time, after
// which it goes as soon as nobody uses it, or with 0 for good.
func (l *Lease) Keep(ctx context.Context, d time.Duration) error {
	path := devicePath(l.Device.ID) + "/keep"
	if d > 0 {
		path += "?for=" + d.String()
	}
	resp, err := l.client.send(ctx, http.MethodPost, path, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Close ends the lease: the device goes as soon as nobody uses it.
func (l *Lease) Close() {
	l.cancel()
	_ = l.body.Close()
}

// Remove removes a device, and returns when nothing of it is left.
func (c *Client) Remove(ctx context.Context, id uint32, force bool) error {
	path := devicePath(id)
	if force {
		path += "?force=true"
	}
	resp, err := c.send(ctx, http.MethodDelete, path, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Devices returns all devices of the server.
func (c *Client) Devices(ctx context.Context) ([]loop.Status, error) {
	var list []loop.Status
	err := c.get(ctx, "/v1/devices", &list)
	return list, err
}

// Device returns one of the server's devices.
func (c *Client) Device(ctx context.Context, id uint32) (loop.Status, error) {
	var s loop.Status
	err := c.get(ctx, devicePath(id), &s)
	return s, err
}

// Status returns what the server says of itself.
func (c *Client) Status(ctx context.Context) (ServerStatus, error) {
	var s ServerStatus
	err := c.get(ctx, "/v1/server", &s)
	return s, err
}

// Stats returns what the server's devices have done.
func (c *Client) Stats(ctx context.Context) (StatsReply, error) {
	var s StatsReply
	err := c.get(ctx, "/v1/stats", &s)
	return s, err
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return readAnswer(json.NewDecoder(resp.Body), v)
}

// Upgrade has the server's program take its place anew, and returns when the
// old one is no more; the new one answers what comes next.
func (c *Client) Upgrade(ctx context.Context) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/upgrade", nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answers := json.NewDecoder(resp.Body)
	var s ServerStatus
	if err := readAnswer(answers, &s); err != nil {
		return err
	}
	var failure ErrorReply
	if answers.Decode(&failure) != nil {
		return ctx.Err() // the connection's end
	}
	return &ServerError{http.StatusInternalServerError, failure}
}

func readAnswer(d *json.Decoder, v any) error {
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// send sends a request, with files, and returns the answer to one that has
// succeeded.
func (c *Client) send(ctx context.Context, method, path string, v any, files []*os.File) (*http.Response, error) {
	var body bytes.Buffer
	if v != nil {
		if err := json.NewEncoder(&body).Encode(v); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://ublk-loop"+path, &body)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, files) },
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	e := &ServerError{Status: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(&e.ErrorReply); err != nil || e.Message == "" {
		e.Message = "the server answers " + resp.Status
	}
	return nil, e
}

func (c *Client) dial(ctx context.Context, files []*os.File) (net.Conn, error) {
	var d net.Dialer
	connected, err := d.DialContext(ctx, "unix", c.socket)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("connect to %s: %w", c.socket, ErrNoServer)
	}
	if err != nil {
		return nil, err
	}
	unixConn, ok := connected.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(unix.EPROTOTYPE, connected.Close())
	}
	return &sender{UnixConn: unixConn, files: files}, nil
}

// sender is a connection of the client's side, which sends descriptors along
// with the first bytes.
type sender struct {
	*net.UnixConn
	mu    sync.Mutex
	files []*os.File // what is still to be sent
}

// Write implements net.Conn.
func (s *sender) Write(p []byte) (int, error) {
	s.mu.Lock()
	files := s.files
	s.files = nil
	s.mu.Unlock()
	if len(files) == 0 {
		return s.UnixConn.Write(p)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := s.WriteMsgUnix(p, unix.UnixRights(fds...), nil)
	if err == nil && n < len(p) {
		more, err := s.UnixConn.Write(p[n:])
		return n + more, err
	}
	return n, err
}
