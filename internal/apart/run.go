package apart

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer"
)

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
	go served.Report(func(f serving.Finding) { _ = s.sendReport(report{Found: &f}) }) // ends with the process
	go answerAll(s, served, h)                                                        // likewise
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
func serve(s socket, h Hooks) (*serving.Served, error) {
	w := work{Work: &serving.Work{}}
	fds, err := s.receiveObject(&w, serving.MaxFDs)
	if err != nil {
		return nil, err
	}
	w.FDs = fds
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

// answerAll answers requests until the end of the server, which is also that of this process.
func answerAll(s socket, served *serving.Served, h Hooks) {
	var mu sync.Mutex
	running := make(map[uint64]context.CancelFunc)
	for {
		var r request
		fds, err := s.receiveObject(&r, serving.MaxRequestFDs)
		switch {
		case err != nil:
			return
		case r.Settle:
			_ = unix.Close(lifelineFD)
			h.Settled()
			continue
		}
		mu.Lock()
		if end := running[r.ID]; r.Cancel && end != nil {
			end()
		}
		if r.Cancel || r.Request == nil {
			mu.Unlock()
			continue
		}
		ctx, end := context.WithCancel(context.Background())
		running[r.ID] = end
		mu.Unlock()
		r.FDs = fds
		go func() { // ends with its answer
			answer, err := served.Answer(ctx, r.Request)
			mu.Lock()
			delete(running, r.ID)
			mu.Unlock()
			end()
			report := reportOf(err)
			report.ID, report.Answer = r.ID, &answer
			_ = s.sendReport(report) // fails if the server ends
		}()
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
