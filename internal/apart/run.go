package apart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// maxFDs is the largest number of descriptors of a work, and of its text. The kernel passes at most
// 253 with a message (SCM_MAX_FD in net/scm.h).
const maxFDs = 1 + loop.MaxWorkFDs

// Hooks are called by Run.
type Hooks struct {
	Prepare func() error      // before the process loses its files
	Queues  func(n int) error // before the process serves a number of queues
	Settled func()            // after Process.Settle
}

// Run is the process. It returns when the queues have ended.
func Run(h Hooks) error {
	s := socket{SocketFD}
	unix.CloseOnExec(s.fd)
	unix.CloseOnExec(lifelineFD)
	if err := errors.Join(s.say(h.Prepare()), s.hear()); err != nil {
		return err
	}
	err := sandbox.Enter()
	if err == nil {
		err = makeRing()
	}
	if err := errors.Join(s.say(err), err); err != nil {
		return err
	}
	served, err := serve(s, h)
	if err := errors.Join(s.say(err), err); err != nil {
		return err
	}
	go func() { // ends with the process
		if s.hear() == nil {
			_ = unix.Close(lifelineFD)
			h.Settled()
		}
	}()
	go served.Report(func(f loop.Finding) { _ = s.sendReport(report{Found: &f}) }) // ends with the process
	err = served.Wait()
	return errors.Join(s.say(err), err)
}

// makeRing makes a ring and closes it. It fails if the kernel makes rings only for privileged
// processes (kernel.io_uring_disabled).
func makeRing() error {
	r, err := ring.New(ring.Options{Entries: 1})
	if err != nil {
		return err
	}
	return r.Close()
}

// serve receives the work and begins it.
func serve(s socket, h Hooks) (*loop.Served, error) {
	w := work{Work: &loop.Work{}}
	_, fds, err := s.receive(make([]byte, 1), maxFDs)
	if err != nil {
		return nil, err
	}
	if len(fds) == 0 {
		return nil, fmt.Errorf("a work without descriptors: %w", unix.EBADMSG)
	}
	text, err := readAll(fds[0])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("read the work: %w", err)
	}
	w.FDs = fds[1:]
	if w.KeyBytes != 0 {
		if w.Key, err = receiveKey(s, w.KeyBytes); err != nil {
			return nil, err
		}
	}
	if err := h.Queues(int(w.Queues.Info.Queues)); err != nil {
		return nil, err
	}
	return w.Serve()
}

// readAll reads a file of memory to its end, and closes it.
func readAll(fd int) ([]byte, error) {
	defer func() { _ = unix.Close(fd) }()
	var text bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n := 0
		err := eintr.Repeat(func() (err error) { n, err = unix.Read(fd, buf); return err })
		if err != nil {
			return nil, fmt.Errorf("read the work: %w", err)
		}
		if n == 0 {
			return text.Bytes(), nil
		}
		text.Write(buf[:n])
	}
}

// receiveKey receives a key of n bytes into its own memory, see Process.pass.
func receiveKey(s socket, n int) (*transfer.Secret, error) {
	key, err := transfer.NewSecret(n)
	if err != nil {
		return nil, err
	}
	got, _, err := s.receive(key.Bytes(), 0)
	if err == nil && got != n {
		err = fmt.Errorf("a key of %d bytes, not of %d: %w", got, n, unix.EBADMSG)
	}
	if err != nil {
		key.Close()
		return nil, err
	}
	return key, nil
}
