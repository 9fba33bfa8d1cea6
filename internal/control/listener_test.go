package control

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// dialAs connects to a socket as another user.
func dialAs(t *testing.T, uid int, address string) net.Conn {
	t.Helper()
	var c net.Conn
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, because its user differs
		_, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno != 0 {
			done <- errno
			return
		}
		var err error
		c, err = net.Dial("unix", address)
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return c
}

// Another user gets an answer to each request, and the server reads no byte of it.
func TestRefuseOtherUsers(t *testing.T) {
	ublktest.NeedsOtherUsers(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + strings.ReplaceAll(t.TempDir(), "/", "-"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int32
	h := &http.Server{
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled.Add(1) }),
		ConnState:         func(net.Conn, http.ConnState) { handled.Add(1) },
		ReadHeaderTimeout: time.Second,
	}
	served := make(chan error)
	go func() { served <- Serve(h, l) }()
	defer func() {
		if err := errors.Join(h.Close(), <-served); err != nil {
			t.Error(err)
		}
	}()
	for _, request := range []string{"GET /v1/devices HTTP/1.1\r\nHost: x\r\n\r\n", "\x00", strings.Repeat("x", 4096)} {
		c := dialAs(t, 12345, l.Addr().String())
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, request); err != nil {
			t.Errorf("%.5q: %v", request, err)
		}
		answer := make([]byte, len(refusal))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != refusal {
			t.Errorf("%.5q: answer %q, %v", request, answer, err)
		}
		if _, err := c.Read(answer); err == nil {
			t.Errorf("%.5q: the connection goes on", request)
		}
		_ = c.Close()
	}
	if n := handled.Load(); n != 0 {
		t.Errorf("the server of HTTP saw %d events of other users", n)
	}
}

// A server that cannot accept connections does not end, unless its listener is closed.
func TestAcceptFails(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // does not listen, so that accept(2) fails
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	opened, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	l, isUnix := opened.(*net.UnixListener)
	if !isUnix {
		t.Fatalf("a listener of type %T", opened)
	}
	passes := func(err error) bool {
		var e interface{ Temporary() bool }
		return errors.As(err, &e) && e.Temporary()
	}
	if _, err := (&listener{UnixListener: l}).Accept(); !errors.Is(err, unix.EINVAL) || !passes(err) {
		t.Errorf("a listener that fails: error %v, which net/http takes for final", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := (&listener{UnixListener: l}).Accept(); !errors.Is(err, net.ErrClosed) || passes(err) {
		t.Errorf("a closed listener: error %v", err)
	}
}

// A connection that the client has reset reads no negative number of bytes, which would be a panic of net/http.
func TestReadAfterReset(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "server")
	ours, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	unixConn, isUnix := ours.(*net.UnixConn)
	if !isUnix {
		t.Fatalf("a connection of type %T", ours)
	}
	c, err := newConn(unixConn, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fds[1]); err != nil { // with unread data, which resets the connection
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
