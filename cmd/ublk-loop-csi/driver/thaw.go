package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/mounts"
)

// thawPatience bounds the wait for a thaw. A thaw writes to the device, which may not answer.
const thawPatience = 30 * time.Second

// errThawing ends the wait for a thaw.
var errThawing = errors.New("the file system stays frozen until its device answers")

// thaws are the thaws that are going on. They end when the devices of their file systems answer. The zero value is ready
// for use.
type thaws struct {
	mu      sync.Mutex
	running map[string]*thawing // by the path of the file system
}

// thawing is a thaw that is going on.
type thawing struct {
	ended chan struct{}
	err   error // set before ended is closed
}

// thaw begins a thaw and waits for the end. If the context is done before, it returns the cause, and the thaw goes on.
func (t *thaws) thaw(ctx context.Context, path string, call func() error) error {
	return t.begin(path, call).wait(ctx)
}

// begin calls a function that thaws the file system at a path, unless that is going on.
func (t *thaws) begin(path string, call func() error) *thawing {
	t.mu.Lock()
	defer t.mu.Unlock()
	running := t.running[path]
	if running == nil {
		running = &thawing{ended: make(chan struct{})}
		if t.running == nil {
			t.running = make(map[string]*thawing)
		}
		t.running[path] = running
		go func() { // until the device answers
			running.err = call()
			t.mu.Lock()
			delete(t.running, path)
			t.mu.Unlock()
			close(running.ended)
		}()
	}
	return running
}

// wait waits for a thaw of the file system at a path, if one is going on. It would end a freeze that comes now.
func (t *thaws) wait(ctx context.Context, path string) error {
	t.mu.Lock()
	running := t.running[path]
	t.mu.Unlock()
	if running == nil {
		return nil
	}
	return running.wait(ctx)
}

func (t *thawing) wait(ctx context.Context) error {
	select {
	case <-t.ended:
		return t.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// thaw thaws a file system. After thawPatience it returns an error, and the thaw goes on.
func (d *Driver) thaw(ctx context.Context, path string) error {
	ctx, end := context.WithTimeoutCause(ctx, thawPatience, fmt.Errorf("thaw %s: %w", path, errThawing))
	defer end()
	return d.thaws.thaw(ctx, path, func() error { return mounts.Thaw(path) })
}

// thawAtStart thaws a file system that an earlier driver may have frozen. Calls for all volumes wait for it, so it waits only
// for a moment. It reports a thaw that takes longer, and an error.
func (d *Driver) thawAtStart(path string) {
	d.thaws.atStart(path, func() error { return mounts.Thaw(path) }, d.opts.Report)
}

// moment is the time in which a device usually answers.
const moment = time.Second

func (t *thaws) atStart(path string, call func() error, report func(error)) {
	running := t.begin(path, call)
	end := func() {
		if <-running.ended; running.err != nil {
			report(running.err)
		}
	}
	select {
	case <-running.ended:
		end()
	case <-time.After(moment):
		report(fmt.Errorf("thaw %s: %w", path, errThawing))
		go end() // until the device answers
	}
}

// undo ends a freeze whose caller has given up: call waits for the freeze and thaws the file system. undo does not wait. It
// reports an error.
func (t *thaws) undo(path string, call func() error, report func(error)) {
	isOurs := false
	running := t.begin(path, func() error { isOurs = true; return call() })
	go func() { // until the device answers
		switch <-running.ended; {
		case !isOurs: // another thaw was going on, which may have come before the freeze
			t.undo(path, call, report)
		case running.err != nil:
			report(running.err)
		}
	}()
}

// withFrozen calls f while a file system is frozen. If this process dies meanwhile, the
// next one thaws the file system.
func (d *Driver) withFrozen(ctx context.Context, path, number string, f func() error) (err error) {
	dir, err := mounts.OpenRoot(path, number)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if err := d.thaws.wait(ctx, path); err != nil {
		return err
	}
	givenUp := func(undo func() error) { d.thaws.undo(path, undo, d.opts.Report) }
	if err := mounts.Freeze(ctx, path, number, givenUp); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.thaw(context.WithoutCancel(ctx), path)) }()
	return f()
}
