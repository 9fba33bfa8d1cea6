package apart

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// attackFromPublisher is a process that gives its clients the text, and the names of the attacks that succeed in it.
func attackFromPublisher(v *victims) {
	err := RunPublisher(func(listener *os.File, text func() ([]byte, error)) error {
		for {
			var fd int
			// The listener has a time limit, so that a signal of Go's scheduler interrupts the call (signal(7)).
			err := eintr.Repeat(func() (err error) {
				fd, _, err = unix.Accept4(int(listener.Fd()), unix.SOCK_CLOEXEC)
				return err
			})
			if err != nil {
				return err
			}
			c := os.NewFile(uintptr(fd), "client")
			got, err := text()
			if err != nil {
				return err
			}
			_, err = c.Write(append(got, succeeded(v)...))
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
	})
	if err != nil {
		os.Exit(1)
	}
}

// Clients of a listener get the text of the server from a process that can do nothing else, not even with the process
// that serves the requests of the same server.
func TestKernelPublisher(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	ublktest.Provokes(t, "openat")
	text := newKey(t)
	key, err := transfer.ReadSecret(bytes.NewReader(text), len(text))
	if err != nil {
		t.Fatal(err)
	}
	dev, holder, err := attachEncrypted(ctl, t.TempDir(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	targets := newVictims(t, holder.Pid(), text).argument(t)
	listener := newSocket(t)
	fd := int(listener.Fd())
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{}), unix.Listen(fd, 1)); err != nil { // at an address that the kernel chooses
		t.Fatal(err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	unlimitThreads(t)
	p, err := StartPublisher("/proc/self/exe", []string{"test", publisherRole, targets}, nil, listener)
	if err != nil {
		t.Fatal(err)
	}
	checkThreadLimit(t, p.Pid())
	texts := []string{"first ", strings.Repeat("x", 1<<20) + " ", ""}
	given, sent := 0, 0
	published := make(chan error, 1)
	go func() {
		published <- p.Publish(func() []byte { given++; return []byte(texts[given-1]) }, func() { sent++ })
	}()
	for i, text := range texts {
		c := newSocket(t)
		if err := eintr.Repeat(func() error { return unix.Connect(int(c.Fd()), address) }); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if err := errors.Join(err, c.Close()); err != nil || string(answer) != text+"none" {
			t.Errorf("client %d gets %d bytes, ending with %q, %v", i, len(answer), answer[max(0, len(answer)-100):], err)
		}
	}
	p.End()
	if err := <-published; !errors.Is(err, errEnded) || sent != len(texts) {
		t.Errorf("%d texts were sent, and then %v", sent, err)
	}
}

// newSocket returns a unix socket. It reads, and waits for room at a listener, for 30 seconds at most.
func newSocket(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	for _, limit := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, limit, &unix.Timeval{Sec: 30})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// A process for clients that asks without a pause does not keep the server busy.
func TestPublisherAsksWithoutPause(t *testing.T) {
	inner, its := pair(t)
	p := &Publisher{inner, make(chan struct{})}
	const texts = 4
	given := make(chan time.Time, texts)
	receiving(t, inner, its, func() { _ = p.Publish(func() []byte { given <- time.Now(); return nil }, func() {}) })
	for range texts {
		if err := its.send([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	first, last := <-given, time.Time{}
	for range texts - 1 {
		last = <-given
	}
	if took := last.Sub(first); took < (texts-1)*publishPause {
		t.Errorf("%d texts were given within %v, want pauses of %v", texts, took, publishPause)
	}
}

// A process for clients that says anything but its question is killed.
func TestPublisherAsksOnly(t *testing.T) {
	for name, message := range map[string][]byte{"a long message": make([]byte, 2), "a report": []byte(`{"errno":5}`)} {
		inner, its := pair(t)
		p := &Publisher{inner, make(chan struct{})}
		published := make(chan error, 1)
		receiving(t, inner, its, func() {
			published <- p.Publish(func() []byte { t.Errorf("%s: it is given a text", name); return nil }, func() {})
		})
		if err := its.send(message); err != nil {
			t.Fatal(err)
		}
		if err := <-published; !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%s: %v", name, err)
		}
		if fake, ok := inner.sandbox.(*fakeSandbox); !ok || fake.kills.Load() != 1 {
			t.Errorf("%s: the process was not killed once", name)
		}
	}
}
