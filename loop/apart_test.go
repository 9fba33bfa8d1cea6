package loop

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// silentProcess is a process that answers nothing.
type silentProcess struct {
	Apart
	mu    sync.Mutex
	asked []serving.Op
}

func (p *silentProcess) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Op)
	p.mu.Unlock()
	<-ctx.Done()
	return serving.Answer{}, ctx.Err()
}

// A process that does not answer keeps the server waiting for a bounded time. After a hold that the server
// has given up, the process is told to resume.
func TestApartDoesNotAnswer(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	synctest.Test(t, func(t *testing.T) {
		p := &silentProcess{}
		a := &apartTarget{process: p}
		begun := time.Now()
		const patience = 3 * time.Second
		inFlight, err := ublk.NewInFlight([]*os.File{null, null})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.holdWith(inFlight, patience); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("hold: %v, want ETIMEDOUT", err)
		}
		if waited := time.Since(begun); waited > patience+savePatience {
			t.Errorf("a hold of %v has waited for %v", patience, waited)
		}
		if err := a.ask(serving.Save); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("save: %v, want ETIMEDOUT", err)
		}
		synctest.Wait()
		if want := []serving.Op{serving.Hold, serving.Resume, serving.Save}; !slices.Equal(sorted(p.asked), sorted(want)) {
			t.Errorf("it was asked for %v, want %v", p.asked, want)
		}
	})
}

func sorted(list []serving.Op) []serving.Op {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// A process that does not end a device keeps its removal waiting for a bounded time. A device that this process serves
// has no limit.
func TestRemovalOfASilentProcess(t *testing.T) {
	for _, isApart := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := &served{dev: &Device{dev: &ublk.Device{}}, gone: make(chan struct{}), err: unix.EIO}
			if isApart {
				d.dev.apart = &apartTarget{process: &silentProcess{}}
			}
			removed := make(chan error, 1)
			go func() { removed <- d.awaitRemoval() }()
			time.Sleep(2 * serving.AnswerPatience)
			want := unix.ETIMEDOUT
			if !isApart || len(removed) == 0 {
				if isApart || len(removed) != 0 {
					t.Errorf("with another process: %v: %d results", isApart, len(removed))
				}
				close(d.gone)
				want = unix.EIO
			}
			if err := <-removed; !errors.Is(err, want) {
				t.Errorf("with another process: %v: error %v, want %v", isApart, err, want)
			}
		})
	}
}

// countingProcess is a process whose counters rise whenever they are read.
type countingProcess struct {
	Apart
	n uint64
}

func (p *countingProcess) Ask(context.Context, *serving.Request) (serving.Answer, error) {
	p.n++
	stats := &ublk.Stats{}
	stats.Ops[0].Requests = p.n
	return serving.Answer{Stats: stats}, nil
}

// The counters of a process do not make a server believe that it answers requests.
func TestFakedCounters(t *testing.T) {
	d := &Device{dev: &ublk.Device{}, apart: &apartTarget{process: &countingProcess{}}}
	if first, second := d.answered(), d.answered(); first != second {
		t.Errorf("%d requests become %d", first, second)
	}
}

// answeringProcess is a process that answers with an error.
type answeringProcess struct {
	Apart
	err   error
	kills int
}

func (p *answeringProcess) Ask(context.Context, *serving.Request) (serving.Answer, error) {
	return serving.Answer{}, p.err
}

func (p *answeringProcess) Kill() { p.kills++ }

// A process that does not change over to the tables in the state is killed. If the device has ended
// meanwhile, the other devices of the process are served on.
func TestApplyFails(t *testing.T) {
	for err, want := range map[error]int{nil: 0, unix.ENODEV: 0, unix.EBADMSG: 1} {
		p := &answeringProcess{err: err}
		(&apartTarget{process: p}).apply()
		if p.kills != want {
			t.Errorf("after %v the process is killed %d times, want %d", err, p.kills, want)
		}
	}
}

// slowProcess answers once, and then no more.
type slowProcess struct {
	silentProcess
	answer *serving.Answer
}

func (p *slowProcess) Ask(ctx context.Context, r *serving.Request) (serving.Answer, error) {
	if a := p.answer; a != nil {
		p.answer = nil
		return *a, nil
	}
	return p.silentProcess.Ask(ctx, r)
}

// The counters of a process that does not answer stay as they were, for a scraper would take zeros for a new beginning.
func TestStatsOfASilentProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &ublk.Stats{Retries: 7}
		a := &apartTarget{process: &slowProcess{answer: &serving.Answer{Stats: counted, Corruptions: 3}}}
		for i := range 2 {
			if got := a.stats(); *got.Stats != *counted || got.Corruptions != 3 {
				t.Errorf("answer %d: %+v", i, got)
			}
		}
		if got := (&apartTarget{process: &silentProcess{}}).stats(); got.Stats == nil || *got.Stats != (ublk.Stats{}) {
			t.Errorf("without an answer: %+v", got)
		}
	})
}

// lyingProcess reports what its devices do not have.
type lyingProcess struct{ Apart }

func (lyingProcess) Ask(context.Context, *serving.Request) (serving.Answer, error) {
	return serving.Answer{Stats: &ublk.Stats{}, Corruptions: 7, Usages: make([]stack.StoreUsage, 1)}, nil
}

// A process cannot report wrong blocks of a device that does not check them, nor the use of a store that it does not have.
func TestStatsOfLyingProcess(t *testing.T) {
	for name, tables := range map[string]*stack.Stack{"of a file": nil, "of tables without verity": {Backings: []*backing.Backing{{Path: "/file"}}}} {
		d := &Device{dev: &ublk.Device{}, apart: &apartTarget{process: lyingProcess{}}, stack: tables}
		if s := d.count(); s.CorruptBlocks != 0 || len(s.Stores) != 0 {
			t.Errorf("a device %s: %d wrong blocks, stores %+v", name, s.CorruptBlocks, s.Stores)
		}
	}
}
