package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// send sends a request with files. It returns the answer if the request succeeded.
func (c *Client) send(ctx context.Context, method, path string, v any, files []*os.File) (*http.Response, error) {
	req, err := newRequest(ctx, method, path, v)
	if err != nil {
		return nil, err
	}
	return c.carryOut(req, files)
}

// newRequest returns a request with a body, unless v is nil.
func newRequest(ctx context.Context, method, path string, v any) (*http.Request, error) {
	var body bytes.Buffer
	if v != nil {
		enc := json.NewEncoder(&body)
		enc.SetEscapeHTML(false) // the server limits the length
		if err := enc.Encode(v); err != nil {
			return nil, err
		}
	}
	return http.NewRequestWithContext(ctx, method, "http://ublk-loop"+path, &body)
}

// carryOut is send for a request.
func (c *Client) carryOut(req *http.Request, files []*os.File) (*http.Response, error) {
	resp, err := c.exchange(req, files)
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
	var errno unix.Errno
	if errors.As(err, &errno) {
		return nil, fmt.Errorf("connect to %s: %w", c.socket, errno)
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

// sender is a connection of the client, which sends descriptors with the first bytes.
type sender struct {
	*net.UnixConn
	mu    sync.Mutex
	files []*os.File // the files that are not yet sent
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
	runtime.KeepAlive(files) // a file without a reference is closed
	if err == nil && n < len(p) {
		more, err := s.UnixConn.Write(p[n:])
		return n + more, err
	}
	return n, err
}
