package ublktest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// watched records the output and the end of a test.
type watched struct {
	testing.TB
	name    string
	said    []string
	skipped bool
	failed  bool
}

func (r *watched) Helper()                   {}
func (r *watched) Name() string              { return r.name }
func (r *watched) Failed() bool              { return r.failed }
func (r *watched) Attr(key, value string)    { r.say(key + "=" + value) }
func (r *watched) Log(args ...any)           { r.say(fmt.Sprint(args...)) }
func (r *watched) Logf(f string, a ...any)   { r.say(fmt.Sprintf(f, a...)) }
func (r *watched) Skip(args ...any)          { r.end(&r.skipped, fmt.Sprint(args...)) }
func (r *watched) Skipf(f string, a ...any)  { r.Skip(fmt.Sprintf(f, a...)) }
func (r *watched) Fatal(args ...any)         { r.end(&r.failed, fmt.Sprint(args...)) }
func (r *watched) Fatalf(f string, a ...any) { r.Fatal(fmt.Sprintf(f, a...)) }
func (r *watched) say(text string)           { r.said = append(r.said, text) }
func (r *watched) end(how *bool, s string)   { *how = true; r.say(s); runtime.Goexit() }

// record runs a test to its end, which may be in the middle of the function.
func record(t *testing.T, test func(t testing.TB)) *watched {
	t.Helper()
	return recordAs(t.Name(), t, test)
}

// recordAs runs a test that has another name.
func recordAs(name string, t *testing.T, test func(t testing.TB)) *watched {
	t.Helper()
	r := &watched{TB: t, name: name}
	done := make(chan struct{})
	go func() { // received below
		defer close(done)
		test(r)
	}()
	<-done
	return r
}

// expect compares the output and the end of a test.
func (r *watched) expect(t *testing.T, skipped, failed bool, said ...string) {
	t.Helper()
	if r.skipped != skipped || r.failed != failed || !slices.Equal(r.said, said) {
		t.Errorf("skipped %v, failed %v, said %q; want %v, %v, %q", r.skipped, r.failed, r.said, skipped, failed, said)
	}
}

func TestRequire(t *testing.T) {
	others := "own,disk" // and as many CPUs as the machine has
	if runtime.NumCPU() > 1 {
		others += ",cpus"
	}
	if !hasRaceDetector() {
		others += ",plain"
	}
	for _, c := range []struct {
		name, has, declare string
		needs              []Need
		skipped            bool
		said               []string
	}{
		{"all is there", others, "", []Need{Own, ScratchDisk, EveryKernel}, false, []string{"needs=own disk every-kernel"}},
		{"nothing needed", others, "", nil, false, []string{"needs="}},
		{"engines are missing", others, "", []Need{Own, Engines}, true, []string{"needs=own engines", "needs container engines (UBLK_LOOP_ENGINES)"}},
		{"only declared", others, "1", []Need{Own}, true, []string{"needs=own", "declared only"}},
		{"a place is no equipment", others, "", []Need{Once, Long, Soak, OldestAndNewest}, false, []string{"needs=once long soak oldest-and-newest"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(hasVariable, c.has)
			t.Setenv(declareVariable, c.declare)
			recordAs("TestKernel", t, func(t testing.TB) { Require(t, c.needs...) }).expect(t, c.skipped, false, c.said...)
		})
	}
}

// A test without a kernel runs on one machine only, and would be skipped everywhere.
func TestEquipmentNeedsKernel(t *testing.T) {
	t.Setenv(hasVariable, "own")
	for _, n := range []Need{Plain, Own, CPUs, ScratchDisk} {
		if r := recordAs("TestUnit", t, func(t testing.TB) { Require(t, n) }); !r.failed {
			t.Errorf("a test of no kernel may need %s: %q", n, r.said)
		}
	}
	for _, name := range []string{"TestKernel", "TestCrash"} {
		if r := recordAs(name, t, func(t testing.TB) { Require(t, Own) }); r.failed || r.skipped {
			t.Errorf("%s may not need a machine of its own: %q", name, r.said)
		}
	}
	if r := recordAs("TestUnit", t, func(t testing.TB) { Require(t, Long, Soak) }); r.failed {
		t.Errorf("a test of no kernel may not be long: %q", r.said)
	}
}

// A runner is wrong if it promises equipment that is missing, or does not mention
// existing equipment.
func TestContradiction(t *testing.T) {
	cpus, plain := runtime.NumCPU() > 1, !hasRaceDetector()
	for n, is := range map[Need]bool{CPUs: cpus, Plain: plain} {
		if err := contradiction(n, is); err != nil {
			t.Error(err)
		}
		if contradiction(n, !is) == nil {
			t.Errorf("%s may be %v, which it is not", n, !is)
		}
	}
	t.Setenv(hasVariable, map[bool]string{true: "own", false: "own,plain"}[plain])
	if r := recordAs("TestKernel", t, func(t testing.TB) { Require(t, Plain) }); !r.failed {
		t.Errorf("a contradiction does not fail the test, which said %q", r.said)
	}
}

func TestMachineLacks(t *testing.T) {
	record(t, func(t testing.TB) { MachineLacks(t, "AVX-512") }).expect(t, true, false, "lacks=AVX-512", "this machine lacks AVX-512")
}

func TestRepeats(t *testing.T) {
	want := 7
	if testing.Short() {
		want = 3
	}
	Require(t, Soak)
	t.Setenv("UBLK_LOOP_KILLS", "")
	if n := Kills(t, 3, 7); n != want {
		t.Errorf("%d, want %d", n, want)
	}
	t.Setenv("UBLK_LOOP_KILLS", "100")
	if n := Kills(t, 3, 7); n != 100 {
		t.Errorf("%d, want 100", n)
	}
	for _, wrong := range []string{"0", "-1", "many"} {
		t.Setenv("UBLK_LOOP_KILLS", wrong)
		if r := record(t, func(t testing.TB) { Kills(t, 3, 7) }); !r.failed {
			t.Errorf("%q is taken", wrong)
		}
	}
}

// A test that kills something belongs to the tier soak.
func TestKillsNeedSoak(t *testing.T) {
	kills := func(t testing.TB) { Kills(t, 1, 1) }
	if r := record(t, kills); !r.failed {
		t.Error("no need is declared")
	}
	Require(t, Once)
	if r := record(t, kills); !r.failed {
		t.Error("another need is declared")
	}
	t.Run("subtest", func(t *testing.T) { Require(t, Soak) })
	if r := record(t, kills); r.failed {
		t.Errorf("it said %q", r.said)
	}
}

const moment = 5 * time.Millisecond

func TestTimedOut(t *testing.T) {
	never := make(chan int)
	for name, wait := range map[string]func(t testing.TB){
		"until":   func(t testing.TB) { Until(t, moment, "the end", func() bool { return false }) },
		"receive": func(t testing.TB) { Receive(t, moment, "the end", never) },
	} {
		record(t, wait).expect(t, false, true, `timed-out="the end"`, "timed out after 5ms: waiting for the end")
		// A time-out after another failure is not the only failure.
		r := record(t, func(t testing.TB) {
			if w, ok := t.(*watched); ok {
				w.failed = true
			}
			wait(t)
		})
		if r.expect(t, false, true, "timed out after 5ms: waiting for the end"); t.Failed() {
			t.Error(name)
		}
	}
	with := record(t, func(t testing.TB) {
		Until(t, moment, "the end", func() bool { return false }, func() string { return "3 are left" })
	})
	if text := strings.Join(with.said, "\n"); !with.failed || !strings.Contains(text, "3 are left\n") {
		t.Errorf("it said %q", text)
	}
}

func TestWaitsEnd(t *testing.T) {
	calls := 0
	record(t, func(t testing.TB) {
		Until(t, time.Minute, "three", func() bool { calls++; return calls == 3 })
	}).expect(t, false, false)
	c := make(chan int, 1)
	c <- 5
	record(t, func(t testing.TB) {
		if v := Receive(t, time.Minute, "five", c); v != 5 {
			t.Fatal(v)
		}
	}).expect(t, false, false)
}
