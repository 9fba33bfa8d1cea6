package apart

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// asked is the server's side of requests.
type asked struct {
	mu      sync.Mutex // protects what is below, and the socket from a close during a send
	closed  bool
	last    uint64 // ID of the last request, or number of the last device
	answers map[uint64]chan *report
	devices map[uint64]*Device // that are served
}

func newAsked() asked {
	return asked{answers: make(map[uint64]chan *report), devices: make(map[uint64]*Device)}
}

// ask sends a request of a device, and waits for its answer. The end of the context ends a merge, and ask then waits for
// its result. For any other request the end of the context ends the wait. After the end of the device ask waits for
// serving.AnswerPatience only.
func (p *Process) ask(ctx context.Context, r request, fds ...int) (serving.Answer, error) {
	id, answer := p.expect()
	defer p.forget(id)
	r.ID = id
	if err := p.send(r, fds...); err != nil {
		if errors.Is(err, errEnded) {
			p.Kill() // It has at least closed its socket.
			err = p.explain(err)
		}
		return serving.Answer{}, err
	}
	done, over := ctx.Done(), r.over
	var late <-chan time.Time
	for {
		select {
		case a := <-answer:
			if a.Answer == nil {
				a.Answer = &serving.Answer{}
			}
			return *a.Answer, a.err()
		case <-p.sandbox.Ended():
			return serving.Answer{}, p.explain(errEnded)
		case <-done:
			isMerge := r.Request != nil && r.Op == serving.Merge
			if isMerge || r.Work != nil {
				_ = p.send(request{head: head{ID: id, Cancel: true}}) // fails only if the process has ended
			}
			if !isMerge {
				return serving.Answer{}, context.Cause(ctx)
			}
			done = nil
		case <-over:
			late, over = time.After(serving.AnswerPatience), nil
		case <-late:
			return serving.Answer{}, serving.ErrSilent
		}
	}
}

// expect returns the ID of a new request, and the channel for its answer.
func (p *Process) expect() (uint64, <-chan *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	answer := make(chan *report, 1)
	p.answers[p.last] = answer
	return p.last, answer
}

func (p *Process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answers, id)
}

// answer passes on an answer, if there is a request that waits for one.
func (p *Process) answer(r *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer := p.answers[r.ID]; answer != nil {
		answer <- r
		delete(p.answers, r.ID)
	}
}

// send sends a request. If it has a key, no other message comes between the two. A process that has not
// read any for sendTimeout is killed.
func (p *Process) send(r request, fds ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errEnded
	}
	err := p.socket.sendRequest(r, fds...)
	if err == nil && r.KeyBytes != 0 {
		// The key is not copied, because a copy may stay in registers, which the Go runtime saves in
		// memory that it does not wipe.
		if err = p.socket.send(r.Work.Key.Bytes()); err != nil && !errors.Is(err, unix.EAGAIN) {
			_ = p.socket.send([]byte{0}) // which the process takes for the key
		}
	}
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return errEnded
	case errors.Is(err, unix.EAGAIN):
		p.Kill()
		return fmt.Errorf("the process that serves the requests does not read: %w", unix.ETIMEDOUT)
	}
	return err
}

// close closes the socket. No other goroutine receives from it.
func (p *Process) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.socket.close()
	}
}

// finish tells the process that it has nothing more to do, so that it ends.
func (p *Process) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_ = unix.Shutdown(p.socket.fd, unix.SHUT_WR)
	}
}
