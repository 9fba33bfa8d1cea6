package apart

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/sandbox"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// pair returns a process without a sandbox, and its end of the sockets.
func pair(t *testing.T) (*Process, socket) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{socket: ours, sandbox: &sandbox.Process{}, asked: newAsked()}
	t.Cleanup(func() {
		p.close()
		_ = theirs.Close()
	})
	return p, socket{int(theirs.Fd())}
}

// An error keeps its text, errno and hint on its way.
func TestReport(t *testing.T) {
	p, its := pair(t)
	for _, want := range []error{
		nil, errors.New("no number"), unix.EIO, errors.Join(unix.ENOSPC, unix.EIO), hint.Add(unix.ENOMEM, "use less"),
	} {
		if err := its.say(want); err != nil {
			t.Fatal(err)
		}
		got := p.hear()
		var errno, wanted unix.Errno
		if errors.As(got, &errno) != errors.As(want, &wanted) || errno != wanted || (got == nil) != (want == nil) {
			t.Errorf("%v arrives as %v", want, got)
		}
		var hinted *hint.Error
		if errors.As(want, &hinted) {
			text := hinted.Hint
			if !errors.As(got, &hinted) || hinted.Hint != text {
				t.Errorf("the hint of %v arrives as %v", want, got)
			}
		}
		if got != nil && got.Error() != want.Error() {
			t.Errorf("%q arrives as %q", want, got)
		}
	}
	if err := its.say(errors.ErrUnsupported); err != nil {
		t.Fatal(err)
	}
	if err := p.hear(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ErrUnsupported arrives as %v", err)
	}
	if err := its.say(errors.New(strings.Repeat("x", maxReport))); err != nil {
		t.Fatal(err)
	}
	if err := p.hear(); err == nil || len(err.Error()) != maxError {
		t.Errorf("a long error: %v", err)
	}
}

// Each request gets its own answer, in any order. Answers to nothing and findings are no end. When the
// context of a merge ends, the process is told, and its result counts.
func TestAsk(t *testing.T) {
	p, its := pair(t)
	found := make(chan serving.Finding, 1)
	ended := make(chan error, 1)
	go func() { ended <- p.hearEnd(&serving.Work{Found: func(f serving.Finding) { found <- f }}) }()
	ctx, end := context.WithCancel(context.Background())
	defer end()
	chunks := map[serving.Op]chan uint64{serving.Merge: make(chan uint64, 1), serving.Save: make(chan uint64, 1)}
	next := func() (r request) {
		t.Helper()
		if _, err := its.receiveObject(&r, serving.MaxRequestFDs); err != nil {
			t.Fatal(err)
		}
		return r
	}
	ids := map[serving.Op]uint64{}
	for op, to := range chunks {
		go func() {
			a, err := p.Ask(ctx, &serving.Request{Op: op})
			if err != nil {
				t.Errorf("%s: %v", op, err)
			}
			to <- a.Chunks
		}()
		ids[op] = next().ID
	}
	end()
	for range chunks {
		if r := next(); !r.Cancel || r.ID != ids[serving.Merge] && r.ID != ids[serving.Save] {
			t.Errorf("at the end of the context comes %+v", r)
		}
	}
	for _, r := range []report{
		{ID: 77, Answer: &serving.Answer{Chunks: 7}},
		{Found: &serving.Finding{}},
		{ID: ids[serving.Save], Answer: &serving.Answer{Chunks: 2}},
		{ID: ids[serving.Merge], Answer: &serving.Answer{Chunks: 1}},
		{ID: ids[serving.Merge], Answer: &serving.Answer{Chunks: 9}},
	} {
		if err := its.sendReport(r); err != nil {
			t.Fatal(err)
		}
	}
	if m, s := <-chunks[serving.Merge], <-chunks[serving.Save]; m != 1 || s != 2 {
		t.Errorf("the answers are %d and %d, want 1 and 2", m, s)
	}
	<-found
	if err := its.say(unix.EIO); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, unix.EIO) {
		t.Errorf("the end is %v", err)
	}
	p.close()
	if _, err := p.Ask(context.Background(), &serving.Request{Op: serving.Save}); !errors.Is(err, errEnded) {
		t.Errorf("a request after the end: %v", err)
	}
}
