package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ring"
)

// RingServer makes the rings of a process that must not make them itself (RingClient). A kernel before Linux 7.0 does not
// limit all rings of a process, but it limits each ring that its maker restricts.
type RingServer struct {
	limits   *ring.Restrictions
	listener *os.File // of askForRings
	layouts  int      // descriptor of a pipe to the process
	stop     *os.File // eventfd(2), which can be read after Close
	closed   atomic.Bool
}

// RingServerFDs are the descriptors that a RingServer needs: the listener of askForRings, and a pipe for layouts.
type RingServerFDs [2]int

// Close closes the descriptors.
func (fds RingServerFDs) Close() error { return errors.Join(unix.Close(fds[0]), unix.Close(fds[1])) }

// NewRingServer returns a server for a process with what EnterAsking has returned there. It takes over the descriptors.
func NewRingServer(limits *ring.Restrictions, fds RingServerFDs) (*RingServer, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), fds.Close())
	}
	return &RingServer{
		limits: limits, listener: os.NewFile(uintptr(fds[0]), "requests for rings"), layouts: fds[1],
		stop: os.NewFile(uintptr(stop), "end of the requests for rings"),
	}, nil
}

// Serve answers requests until the process has ended, or Close. After an error, further requests wait for Close.
func (s *RingServer) Serve() error {
	defer func() { _ = unix.Close(s.layouts) }()
	for {
		err := s.await()
		if err == nil {
			err = s.serveNext()
		}
		switch {
		case errors.Is(err, io.EOF), s.closed.Load():
			return nil
		case err != nil && !errors.Is(err, unix.ENOENT): // the caller was killed meanwhile
			return fmt.Errorf("serve rings: %w", err)
		}
	}
}

// await waits for a request. The descriptors stay open as long as it waits.
func (s *RingServer) await() (waited error) {
	listener, err := s.listener.SyscallConn()
	if err != nil {
		return err
	}
	stop, err := s.stop.SyscallConn()
	if err != nil {
		return err
	}
	err = listener.Control(func(listener uintptr) {
		if err := stop.Control(func(stop uintptr) { waited = awaitNotification(int(listener), int(stop)) }); err != nil {
			waited = err
		}
	})
	return errors.Join(err, waited)
}

// serveNext answers a request.
func (s *RingServer) serveNext() error {
	n, err := receiveNotification(s.listener)
	if err != nil {
		return err
	}
	return s.answer(n)
}

// Close ends Serve, or a Serve that is to come. Requests then fail with ENOSYS.
func (s *RingServer) Close() {
	s.closed.Store(true)
	_, _ = s.stop.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // a number; only after another Close it fails
	_ = s.listener.Close()
	_ = s.stop.Close()
}

// answer makes the ring of a request, and gives it to the process, or refuses it. What the process asks for can be anything:
// the kernel bounds the size of a ring, and the limits of open files and of mappings, which also keep a ring, their number.
func (s *RingServer) answer(n *notification) error {
	fd, err := s.give(n)
	if err != nil {
		return n.refuse(s.listener, errnoOf(err))
	}
	return n.accept(s.listener, fd)
}

// give makes the ring of a request, and returns its descriptor in the process. Only then the layout can follow, because
// nobody would take it out of the pipe if the process had no room for the descriptor. A process that takes no layouts out
// gets EAGAIN, and keeps the descriptor.
func (s *RingServer) give(n *notification) (theirs int, err error) {
	if !makesRings() { // as the kernel decides when a process makes its rings itself, however privileged this one is
		return -1, os.NewSyscallError("io_uring_setup", unix.EPERM)
	}
	ours, layout, err := makeRing(ring.Options{
		Entries: uint32(n.Args[0]), CQEntries: uint32(n.Args[1]), SingleIssuer: n.Args[2] == singleIssuer, Restrictions: s.limits,
	})
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(ours) }()
	if theirs, err = n.add(s.listener, ours); err != nil {
		return -1, err
	}
	_, err = unix.Write(s.layouts, layout[:])
	return theirs, err
}

// makeRing is ring.Make in a thread that ends, so that the release of the ring waits for no thread of this process.
func makeRing(opts ring.Options) (fd int, layout ring.Layout, err error) {
	done := make(chan struct{})
	startThread(func() {
		defer close(done)
		fd, layout, err = ring.Make(opts)
	})
	<-done
	return fd, layout, err
}

// errnoOf returns the errno of an error, or EIO.
func errnoOf(err error) unix.Errno {
	errno := unix.EIO
	_ = errors.As(err, &errno)
	return errno
}
