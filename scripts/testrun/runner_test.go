package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// testRunner returns a runner and the output that it will print.
func testRunner() (*runner, *strings.Builder) {
	var out strings.Builder
	return &runner{
		out: &lineWriter{out: &out}, ledger: newLedger(), times: &times{seconds: map[string]float64{}},
		started: time.Now(), current: map[*job]progress{}, underWay: func() []string { return []string{"kernel 6.12"} },
	}, &out
}

// shellJob returns a job whose process is a shell script that prints what a test binary
// would print. Its further jobs run the other scripts in order.
func shellJob(planned []string, scripts ...string) *job {
	j := &job{title: "7.3 loop", bed: "7.3", pkg: "loop", planned: planned}
	j.command = func(ctx context.Context) (*exec.Cmd, error) {
		script := scripts[0]
		if !strings.Contains(script, "exit") {
			script += "echo PASS" // a test binary ends with this line
		}
		return exec.CommandContext(ctx, "sh", "-c", script), nil
	}
	j.rest = func(names []string) *job { return shellJob(names, scripts[min(1, len(scripts)-1):]...) }
	return j
}

const never = time.Hour

// passing and the functions below return shell commands that print the output of a test.
func passing(name string) string {
	return "printf '=== RUN   " + name + "\\n--- PASS: " + name + " (0.00s)\\n';"
}

func failing(name, text string) string {
	return "printf '=== RUN   " + name + "\\n" + text + "\\n--- FAIL: " + name + " (0.00s)\\n'; trap 'echo FAIL; exit 1' EXIT;"
}

func begins(name string) string { return "printf '=== RUN   " + name + "\\n';" }

const (
	boot    = "echo 'vm.sh: error: kernel 7.3 did not end within 600 seconds'; exit 125"
	panics  = "echo 'panic: nil map'; exit 2"
	tooSlow = "echo 'panic: test timed out after 10m0s'; exit 2"
)

func timedOut(name string) string {
	return failing(name, `=== ATTR  `+name+` timed-out "x"\n    a_test.go:1: timed out after 5s: waiting for x`)
}

func TestWork(t *testing.T) {
	for _, c := range []struct {
		name                    string
		planned                 []string
		scripts                 []string
		passed, failed, skipped int
		unsteady                int
		says                    string
	}{
		{"all pass", []string{"TestA", "TestB"}, []string{passing("TestA") + passing("TestB")}, 2, 0, 0, 0, ""},
		{"one fails", []string{"TestA", "TestB"}, []string{passing("TestA") + failing("TestB", "    a_test.go:1: wrong")}, 1, 1, 0, 0, "wrong"},
		{"repeated, and one fails the first time", []string{"TestA", "TestB"}, []string{passing("TestA") + failing("TestB", "    a_test.go:1: wrong") + passing("TestA") + passing("TestB")}, 1, 1, 0, 0, "wrong"},
		{"repeated, and one fails the second time", []string{"TestA"}, []string{passing("TestA") + failing("TestA", "    a_test.go:1: wrong")}, 0, 1, 0, 0, "wrong"},
		{"repeated, and the process dies the second time", []string{"TestA"}, []string{passing("TestA") + begins("TestA") + panics}, 0, 1, 0, 0, "did not end"},
		{"a test did not run", []string{"TestA", "TestB"}, []string{passing("TestA")}, 1, 1, 0, 0, "they did not run"},
		{"a panic in the middle, the others go on", []string{"TestA", "TestB", "TestC"}, []string{passing("TestA") + begins("TestB") + panics, passing("TestC")}, 2, 1, 0, 0, "1 tests are left"},
		{"a death between two tests", []string{"TestA", "TestB"}, []string{passing("TestA") + "echo PASS; echo gone; exit 125", passing("TestB")}, 2, 1, 0, 0, "gone"},
		{"a machine that hangs after its last test", []string{"TestA"}, []string{passing("TestA") + "echo PASS;" + boot}, 1, 1, 0, 0, "did not end"},
		{"a machine that hangs between two tests", []string{"TestA", "TestB"}, []string{passing("TestA") + "echo PASS;" + boot, passing("TestB")}, 2, 0, 0, 1, "did not end"},
		{"a panic outside of the tests", []string{"TestA"}, []string{passing("TestA") + "echo PASS; echo exit in TestMain; exit 3"}, 1, 1, 0, 0, "exit in TestMain"},
		{"the machine never comes up", []string{"TestA", "TestB"}, []string{"echo 'vm.sh: error: kernel 7.3 panicked'; exit 125"}, 0, 2, 0, 0, "panicked"},
		{"the machine hangs once as it comes up", []string{"TestA", "TestB"}, []string{boot, passing("TestA") + passing("TestB")}, 2, 0, 0, 1, "did not end"},
		{"the machine hangs twice as it comes up", []string{"TestA", "TestB"}, []string{boot, boot}, 0, 2, 0, 1, "did not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := testRunner()
			r.schedule(t.Context(), 2, []*job{shellJob(c.planned, c.scripts...)}, never)
			got := sum(r.ledger.all())
			if got.passed != c.passed || got.failed != c.failed || got.skipped != c.skipped || len(r.unsteady) != c.unsteady || !strings.Contains(out.String(), c.says) {
				t.Errorf("%+v, unsteady %q; printed:\n%s", got, r.unsteady, out)
			}
		})
	}
}

// A test is tried again only if it only timed out. It then runs alone, and has to pass
// twice.
func TestTryAgain(t *testing.T) {
	for _, c := range []struct {
		name     string
		first    string
		again    []string
		passed   int
		unsteady string
		tries    int32
	}{
		{"a time-out that passes twice", timedOut("TestA"), []string{passing("TestA"), passing("TestA")}, 1, "7.3 loop.TestA", 2},
		{"a time-out that passes once", timedOut("TestA"), []string{passing("TestA"), timedOut("TestA")}, 0, "", 2},
		{"a time-out with another failure then", timedOut("TestA"), []string{failing("TestA", "    a_test.go:1: wrong")}, 0, "", 1},
		{"a time-out that is skipped then", timedOut("TestA"), []string{"printf '=== RUN   TestA\\n--- SKIP: TestA (0.00s)\\n';"}, 0, "", 1},
		{"a time-out whose process dies then", timedOut("TestA"), []string{begins("TestA") + panics}, 0, "", 1},
		{"go's limit", begins("TestA") + tooSlow, []string{passing("TestA"), passing("TestA")}, 1, "7.3 loop.TestA", 2},
		{"wrong data", failing("TestA", "    a_test.go:1: wrong"), nil, 0, "", 0},
		{"a panic", begins("TestA") + panics, nil, 0, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := testRunner()
			r.schedule(t.Context(), 1, []*job{shellJob([]string{"TestA"}, c.first)}, never)
			var tries atomic.Int32
			r.tryAgain(t.Context(), func(result) *job {
				return shellJob([]string{"TestA"}, c.again[tries.Add(1)-1])
			}, never)
			got := sum(r.ledger.all())
			if got.passed != c.passed || got.failed != 1-c.passed || strings.Join(r.unsteady, " ") != c.unsteady || tries.Load() != c.tries {
				t.Errorf("%+v after %d tries, unsteady %q; printed:\n%s", got, tries.Load(), r.unsteady, out)
			}
		})
	}
}

// A test that only timed out may be tried again. That does not forgive what else went wrong in
// its process or machine.
func TestTryAgainForgivesOnlyTime(t *testing.T) {
	const fails = "trap - EXIT; echo FAIL;" // as the end of a test binary
	for _, c := range []struct {
		name, then, console string
		failed              int
	}{
		{"nothing else", "", "", 0},
		{"a panic at the end of TestMain", fails + panics, "", 1},
		{"the machine panics", fails + "echo 'vm.sh: error: kernel 7.3 panicked'; exit 125", "", 1},
		{"the machine is gone", fails + "echo 'vm.sh: error: kernel 7.3 ended without an exit status'; exit 125", "", 1},
		{"the kernel complains", "", "BUG: soft lockup\n", 1},
		{"the machine hangs", fails + boot, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := testRunner()
			j := shellJob([]string{"TestA"}, timedOut("TestA")+c.then)
			j.console = write(t, c.console)
			r.schedule(t.Context(), 1, []*job{j}, never)
			r.tryAgain(t.Context(), func(result) *job { return shellJob([]string{"TestA"}, passing("TestA")) }, never)
			if got := sum(r.ledger.all()); got.passed != 1 || got.failed != c.failed {
				t.Errorf("%+v, want %d failed; printed:\n%s", got, c.failed, out)
			}
		})
	}
}

// A complaint of the kernel that no test has seen fails the run: it came before the first test or after
// the last one. A complaint that has failed a test counts once.
func TestComplaintOutsideOfTests(t *testing.T) {
	const complaint = "[   12.3] WARNING: CPU: 0 PID: 1 at drivers/block/ublk_drv.c:1\n"
	for _, c := range []struct {
		name, script, console string
		passed, failed        int
	}{
		{"none", passing("TestA") + passing("TestB"), "[   12.3] ublk: started\n", 2, 0},
		{"no test saw it", passing("TestA") + passing("TestB"), "[   12.3] ublk: started\n" + complaint, 2, 1},
		{"a test has failed", passing("TestA") + failing("TestB", "    kernel.go:1: kernel log: WARNING:"), complaint, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, out := testRunner()
			j := shellJob([]string{"TestA", "TestB"}, c.script)
			j.console = write(t, c.console)
			r.schedule(t.Context(), 1, []*job{j}, never)
			got := sum(r.ledger.all())
			if got.passed != c.passed || got.failed != c.failed || strings.Contains(out.String(), strings.TrimSpace(complaint)) != (c.name == "no test saw it") {
				t.Errorf("%+v; printed:\n%s", got, out)
			}
		})
	}
}

// If many tests time out, none is tried again.
func TestManyTimeOuts(t *testing.T) {
	r, _ := testRunner()
	names := []string{"TestA", "TestB", "TestC", "TestD"}
	var script string
	for _, name := range names {
		script += timedOut(name)
	}
	r.schedule(t.Context(), 1, []*job{shellJob(names, script)}, never)
	r.tryAgain(t.Context(), func(res result) *job {
		t.Errorf("%s is tried again", res)
		return shellJob(names, "exit 1")
	}, never)
	if got := sum(r.ledger.all()); got.failed != 4 {
		t.Errorf("%+v", got)
	}
}

// If a supply cannot be fetched, each test that needs it fails, and no other test does.
func TestMissingSupply(t *testing.T) {
	r, out := testRunner()
	without := shellJob([]string{"TestA", "TestB"}, "")
	without.command = func(context.Context) (*exec.Cmd, error) { return nil, errors.New("kernel 6.18: no mirror") }
	r.schedule(t.Context(), 1, []*job{without, shellJob([]string{"TestC"}, passing("TestC"))}, never)
	got := sum(r.ledger.all())
	if got.passed != 1 || got.failed != 2 || !strings.Contains(out.String(), "kernel 6.18: no mirror") {
		t.Errorf("%+v; printed:\n%s", got, out)
	}
}

// The longest job starts first, no more jobs run than there are slots, and a job that has
// to be alone on its bed is alone.
func TestSchedule(t *testing.T) {
	var order []string
	var running, most atomic.Int32
	gate := make(chan struct{})
	s := scheduler{slots: 2, every: never, fail: func(*job, error) {}}
	s.work = func(_ context.Context, j *job, _ *exec.Cmd) []*job {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-gate
		running.Add(-1)
		return nil
	}
	var jobs []*job
	prepared := make(chan string, 10)
	for i, title := range []string{"b", "a", "c"} {
		j := &job{title: title, bed: "host", alone: true, expected: time.Duration(10*i) * time.Second}
		j.command = func(context.Context) (*exec.Cmd, error) { prepared <- title; return nil, nil }
		jobs = append(jobs, j)
	}
	done := make(chan struct{})
	go func() { // received below
		defer close(done)
		s.run(t.Context(), jobs)
	}()
	for range jobs {
		order = append(order, <-prepared)
		gate <- struct{}{}
	}
	<-done
	if most.Load() != 1 {
		t.Errorf("%d jobs ran at once on a bed for one, prepared were %q", most.Load(), order)
	}
	waiting := []ready{{job: &job{title: "short", expected: 1}}, {job: &job{title: "long", expected: 2}}}
	if i := (&slots{number: 1}).next(waiting); i != 1 {
		t.Errorf("next is %d, want the long one", i)
	}
	if i := (&slots{number: 1, busy: []*job{{}}}).next(waiting); i != -1 {
		t.Errorf("next is %d, though all slots are taken", i)
	}
	if !slices.Contains(order, "c") {
		t.Errorf("prepared were %q", order)
	}
}

// One job whose tests wait runs beside those in the slots, whether it starts first or last. With
// a single slot it takes that slot.
func TestWaitingJobNeedsNoSlot(t *testing.T) {
	works, waits := &job{title: "works", expected: 1}, &job{title: "waits", expected: 2, waits: true}
	both := &job{title: "both", slots: 2}
	for _, tt := range []struct {
		slots int
		busy  []*job
		next  string
	}{
		{2, nil, "waits"},
		{2, []*job{works, works}, "waits"},
		{2, []*job{waits}, "works"},
		{2, []*job{waits, works}, "works"},
		{2, []*job{works, works, waits}, ""},
		{1, nil, "waits"},
		{1, []*job{works}, ""},
		{1, []*job{waits}, ""},
		{3, []*job{both}, "waits"},
		{3, []*job{both, waits}, "works"},
		{3, []*job{both, works, waits}, ""},
	} {
		waiting, got := []ready{{job: works}, {job: waits}}, ""
		if i := (&slots{number: tt.slots, busy: tt.busy}).next(waiting); i >= 0 {
			got = waiting[i].job.title
		}
		if got != tt.next {
			t.Errorf("%d slots, %d jobs run: next is %q, want %q", tt.slots, len(tt.busy), got, tt.next)
		}
	}
}

// A job that takes two slots starts if two are free, or if nothing runs.
func TestJobOfTwoSlots(t *testing.T) {
	one, both := &job{}, &job{slots: 2}
	for _, tt := range []struct {
		slots int
		busy  []*job
		may   bool
	}{
		{1, nil, true},
		{2, nil, true},
		{2, []*job{one}, false},
		{2, []*job{both}, false},
		{3, []*job{one}, true},
		{3, []*job{one, one}, false},
		{3, []*job{both}, false},
		{4, []*job{both}, true},
	} {
		if may := (&slots{number: tt.slots, busy: tt.busy}).mayStart(both); may != tt.may {
			t.Errorf("%d slots, %d jobs run: may start: %v, want %v", tt.slots, len(tt.busy), may, tt.may)
		}
	}
	if !(&slots{number: 3, busy: []*job{both}}).mayStart(one) || (&slots{number: 2, busy: []*job{both}}).mayStart(one) {
		t.Error("a job of two slots leaves another number of slots")
	}
}

// A line of progress names what is done, what runs and what is left.
func TestProgress(t *testing.T) {
	r, out := testRunner()
	r.ledger.add(one("uml", "TestB", passed))
	r.ledger.add(one("uml", "TestC", failed))
	j := shellJob([]string{"TestA"}, "")
	r.current[j] = progress{since: time.Now(), test: "TestA"}
	r.report([]*job{j}, 2)
	const want = "-- 0s: 2 done, 1 failed; 2 jobs wait; running: 7.3 loop 0s TestA; being fetched or built: kernel 6.12\n"
	if out.String() != want {
		t.Errorf("printed:\n%swant:\n%s", out, want)
	}
}

// A running job does not keep the lines of progress from being printed.
func TestProgressComes(t *testing.T) {
	told := make(chan struct{})
	s := scheduler{slots: 1, every: time.Millisecond, fail: func(*job, error) {}}
	s.work = func(context.Context, *job, *exec.Cmd) []*job {
		<-told
		return nil
	}
	var once sync.Once
	s.progress = func(running []*job, waiting int) {
		if len(running) == 1 && waiting == 0 {
			once.Do(func() { close(told) })
		}
	}
	s.run(t.Context(), []*job{shellJob(nil, "")})
}

// Progress is also reported before the first job, while tests are built to be asked for their
// needs.
func TestProgressBeforeJobs(t *testing.T) {
	r, out := testRunner()
	told := make(chan struct{})
	r.underWay = sync.OnceValue(func() []string {
		close(told)
		return []string{"tests of loop"}
	})
	r.meanwhile(time.Millisecond, func() { ublktest.Receive(t, time.Minute, "a line of progress", told) })
	if want := "; being fetched or built: tests of loop\n"; !strings.Contains(out.String(), want) {
		t.Errorf("printed %q, want %q", out, want)
	}
}

// An interrupted run ends at once and leaves no process behind.
func TestInterrupted(t *testing.T) {
	r, _ := testRunner()
	ctx, stop := context.WithCancel(t.Context())
	j := shellJob([]string{"TestA"}, begins("TestA")+"sleep 1000 & wait")
	time.AfterFunc(100*time.Millisecond, stop)
	began := time.Now()
	r.schedule(ctx, 1, []*job{j}, never)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if all := r.ledger.all(); len(all) != 0 {
		t.Errorf("results are %+v", all)
	}
}
