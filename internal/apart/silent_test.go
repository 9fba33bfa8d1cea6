package apart

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// A start of a device fails when the process answers nothing, and after a long time when it answers only other
// requests. The process is told not to begin later.
func TestStartOfASilentProcess(t *testing.T) {
	for name, c := range map[string]struct {
		answers bool
		atMost  time.Duration
	}{
		"nothing":        {false, 2 * serving.AnswerPatience},
		"other requests": {true, startPatience + serving.AnswerPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, its := pair(t)
				begun := time.Now()
				started := make(chan error, 1)
				go func() {
					_, err := p.Device().Serve(&serving.Work{})
					started <- err
				}()
				synctest.Wait()
				id := next(t, its).ID
				for len(started) == 0 && time.Since(begun) <= c.atMost {
					time.Sleep(serving.AnswerPatience / 2)
					synctest.Wait()
					if c.answers && len(started) == 0 {
						p.answerAll(t, its, id)
					}
				}
				if len(started) == 0 {
					p.Kill()
					t.Fatalf("the start has no end after %v: %v", time.Since(begun), <-started)
				}
				if err := <-started; !errors.Is(err, unix.ETIMEDOUT) {
					t.Errorf("error %v, want ETIMEDOUT", err)
				}
				p.finish() // so that a message that is missing is an error
				for r := next(t, its); r.ID != id || !r.Cancel; {
					r = next(t, its)
				}
				if len(p.devices) != 0 || len(p.answers) != 0 {
					t.Errorf("%d devices and %d requests are kept", len(p.devices), len(p.answers))
				}
			})
		})
	}
}

// answerAll answers all requests but one.
func (p *Process) answerAll(t *testing.T, its socket, but uint64) {
	t.Helper()
	p.mu.Lock()
	n := len(p.answers) - 1
	p.mu.Unlock()
	for range n {
		r := next(t, its)
		if r.ID == but {
			t.Fatalf("again comes %+v", r)
		}
		p.answer(&report{ID: r.ID})
	}
}

// A merge that the process does not end keeps the end of its device waiting for a bounded time. Before that it has no
// limit.
func TestMergeOfASilentProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, its := pair(t)
		d := p.Device()
		p.enter(d)
		ctx, end := context.WithCancel(t.Context())
		merged := make(chan error, 1)
		go func() {
			_, err := d.Ask(ctx, &serving.Request{Op: serving.Merge})
			merged <- err
		}()
		synctest.Wait()
		id := next(t, its).ID
		end()
		time.Sleep(100 * serving.AnswerPatience)
		if r := next(t, its); r.ID != id || !r.Cancel {
			t.Errorf("at the end of the context comes %+v", r)
		}
		if len(merged) != 0 {
			t.Fatalf("without its result the merge ends: %v", <-merged)
		}
		p.end(&report{Device: d.number})
		time.Sleep(serving.AnswerPatience)
		synctest.Wait()
		if len(merged) == 0 {
			p.Kill()
			t.Fatalf("the merge goes on without its device: %v", <-merged)
		}
		if err := <-merged; !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("error %v, want ETIMEDOUT", err)
		}
	})
}

// The process does not begin a work that the server has given up meanwhile.
func TestWorkGivenUp(t *testing.T) {
	p, its := pair(t)
	begun, release := make(chan struct{}), make(chan struct{})
	c := newChild(its, Hooks{Queues: func(int) error { close(begun); <-release; return nil }, Answered: func() {}}, nil)
	receiving(t, p, its, func() { _ = c.receiveAll() })
	receiving(t, p, its, p.watch)
	theirs, isClosed := watched(t)
	id, answer := p.expect()
	defer p.forget(id)
	w := &serving.Work{File: &serving.File{}}
	w.Queues.Info.Queues = 1
	fd := int(theirs.Fd())
	if err := p.send(request{head: head{ID: id}, Work: w}, fd, fd); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := p.send(request{head: head{ID: id, Cancel: true}}); err != nil {
		t.Fatal(err)
	}
	goesOn(t, p) // so that it has read the request before
	close(release)
	if err := await(t, p, answer); err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("error %v, want that of a cancelled request", err)
	}
	isClosed()
}
