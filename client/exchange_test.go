package client_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// answering makes a server that calls a function for each connection, and closes the connection
// afterwards. It returns a client of the server.
func answering(t *testing.T, answer func(c net.Conn)) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			answer(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return client.New(socket)
}

// readRequest reads a request with its body.
func readRequest(t *testing.T, c net.Conn) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	if err != nil {
		t.Error(err)
	}
}

// A server may answer before it has read a request that is larger than the buffers of its socket.
func TestEarlyAnswer(t *testing.T) {
	c := answering(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 100))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 21\r\n\r\n{\"error\":\"too large\"}")
	})
	_, err := c.Add(t.Context(), client.AddRequest{Table: strings.Repeat("x", 4<<20)}, client.Files{})
	if !client.HasStatus(err, http.StatusRequestEntityTooLarge) {
		t.Errorf("error %v", err)
	}
}

// If the server ends the connection without an answer, a request that has no key is sent again, whether or not
// the server has read it.
func TestRequestIsSentAgain(t *testing.T) {
	for name, first := range map[string]func(c net.Conn){
		"read":     func(c net.Conn) { readRequest(t, c) },
		"begun":    func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 100)) },
		"not read": func(c net.Conn) { awaitData(t, c) },
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			c := answering(t, func(c net.Conn) {
				if requests++; requests == 1 {
					first(c)
					return
				}
				readRequest(t, c)
				_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{\"id\": 7}")
			})
			lease, err := c.Add(t.Context(), client.AddRequest{File: "/x"}, client.Files{})
			if err != nil {
				t.Fatal(err)
			}
			if <-lease.Ended(); lease.Device.ID != 7 {
				t.Errorf("device %d", lease.Device.ID)
			}
			lease.Close()
		})
	}
}

// awaitData waits until the client has sent something, and does not read it.
func awaitData(t *testing.T, c net.Conn) {
	t.Helper()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		t.Errorf("a connection is a %T", c)
		return
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN)
		})
	}
	if err != nil {
		t.Error(err)
	}
}

// The end of the context ends a request that waits for the head of the answer, and one that waits
// for its body. The error is the cause.
func TestCancelledRequest(t *testing.T) {
	interrupted := errors.New("interrupted")
	for name, begin := range map[string]string{"head": "", "body": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			c := answering(t, func(c net.Conn) {
				readRequest(t, c)
				_, _ = io.WriteString(c, begin)
				cancel(interrupted)
				_, _ = io.Copy(io.Discard, c) // until the client has closed its end
			})
			if _, err := c.Device(ctx, 0); !errors.Is(err, interrupted) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The connection ends with the lease, and after any other request with the answer, even if the server
// would go on.
func TestCloseEndsTheConnection(t *testing.T) {
	closed := make(chan error, 1)
	c := answering(t, func(c net.Conn) {
		readRequest(t, c)
		_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\n\r\n{\"id\": 7}\n")
		_, err := c.Read(make([]byte, 1))
		closed <- err
	})
	lease, err := c.Add(t.Context(), client.AddRequest{File: "/x"}, client.Files{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-lease.Ended():
		t.Error("the lease has ended")
	default:
	}
	lease.Close()
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("at the end of a lease the server reads: %v", err)
	}
	if d, err := c.Device(t.Context(), 7); err != nil || d.ID != 7 {
		t.Errorf("device %+v, error %v", d, err)
	}
	if err := <-closed; !errors.Is(err, io.EOF) {
		t.Errorf("after an answer the server reads: %v", err)
	}
}

// The error of a socket to which the client cannot connect names the socket, and not what package net
// does.
func TestCannotConnect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := client.New(file+"/socket").Device(t.Context(), 0)
	if want := "connect to " + file + "/socket: not a directory"; !errors.Is(err, unix.ENOTDIR) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Without a socket there is no server.
func TestNoServer(t *testing.T) {
	_, err := client.New(filepath.Join(t.TempDir(), "socket")).Device(t.Context(), 0)
	if !errors.Is(err, client.ErrNoServer) {
		t.Errorf("error %v", err)
	}
}
