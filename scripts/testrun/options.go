package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const usage = `usage: test.sh [--unit | --tier TIER] [--kernel NAME|DIR|host]... [--run REGEX] [--package DIR]... [--count N] [--resume] [--plan]

Runs the tests of all packages that need no kernel (Test...) on this machine, and those that need one (TestKernel...,
TestCrash...) on the kernels of kernels.txt: in user-mode Linux and in virtual machines. They also run on this machine's own
kernel ("host") if it has ublk and the user is root.

  --tier quick    (default) run each test of the kernel on the first kernel that has what the test needs; run a test that
                  depends on the kernel on every kernel
  --tier full     run every test on every kernel, again in user-mode Linux with the race detector, the tests TestLong...,
                  and each fuzz test for a minute
  --tier soak     run only the tests that repeat something: 100 times, with 1,000 devices, for 5 minutes without memory
  --unit          run only the tests that need no kernel, without TestGuest...; the same as --tier unit
  --kernel NAME   run only the tests of the kernel, on this kernel only; may be repeated. Without --tier, run all that this
                  kernel can run
  --run REGEX     run only the tests of the kernel with matching names (with --unit: only matching tests that need none)
  --package DIR   test only this package (./loop), or with /... also those below; may be repeated
  --count N       run each test N times in the same process or machine, to find tests that fail now and then. A time-out
                  then fails the run
  --resume        leave out the tests that passed in an earlier run of this tier with the same source
  --plan          print which tests would run on which kernels, and run none

A test that only took too long runs twice more, by itself. If it passes both times, it counts as passed and is listed above
the last line as unsteady. Any other failure fails the run. A test counts as skipped if it was skipped on every kernel.

Environment:
  JOBS                    number of processes with tests at once (default: one more than the number of CPUs, because a
                          machine now and then waits). Beside several, one more runs tests that mostly wait
  UBLK_LOOP_TEST_TIMEOUT  seconds that one of them may take
  UBLK_LOOP_KILLS         how many times a test kills something in each way
  UBLK_LOOP_PREFIXES      writes to a store after which a test cuts the power, beside its flushes
  UBLK_LOOP_PRESSURE      seconds for which a test keeps a machine short of memory in each way
  UBLK_LOOP_DEVICES       number of devices that one server has in a test
  UBLK_LOOP_CONTAINERD    Debian suites whose containerd is tested
  UBLK_LOOP_CACHE         directory for kernels and other downloads (default: ~/.cache/ublk-loop)
testrun sets UBLK_LOOP_HAS for the tests (what the machine has, in the words of ublktest), UBLK_LOOP_BIN (the program),
UBLK_LOOP_SAMPLE (on a kernel that repeats tests of another one in the tier quick), and for the tests that need them UBLK_LOOP_DISK, UBLK_LOOP_ENGINES, UBLK_LOOP_SUITES, UBLK_LOOP_SNAPSHOTTER, UBLK_LOOP_CONTAINERD
and UBLK_LOOP_UTIL_LINUX.
`

// options are the choices of the command line and the environment.
type options struct {
	tier      tier
	kernels   []string
	packages  []string
	run       *regexp.Regexp // nil for all
	runText   string
	count     int // how often each test runs
	resume    bool
	planOnly  bool
	tierGiven bool
	jobs      int
	limit     time.Duration
	cache     string
}

// isWhole reports whether a run selects all tests. In such a run, a test that runs on no
// bed is a failure.
func (o *options) isWhole() bool {
	return (o.tier == quick || o.tier == full) && len(o.kernels) == 0 && !o.isNarrow() && o.count == 1
}

// isNarrow reports whether a run leaves out packages, or tests by their names.
func (o *options) isNarrow() bool { return len(o.packages) > 0 || o.run != nil }

// subtests returns the part of --run from the first slash on.
func (o *options) subtests() string {
	i := strings.IndexByte(o.runText, '/')
	if i < 0 {
		return ""
	}
	return o.runText[i:]
}

func parse(args []string, out io.Writer) (*options, error) {
	o := &options{tier: quick}
	flags := flag.NewFlagSet("test.sh", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, usage) }
	tierName := flags.String("tier", "", "")
	isUnit := flags.Bool("unit", false, "")
	flags.Func("kernel", "", func(s string) error { o.kernels = append(o.kernels, s); return nil })
	flags.Func("package", "", func(s string) error { o.packages = append(o.packages, s); return nil })
	flags.StringVar(&o.runText, "run", "", "")
	flags.IntVar(&o.count, "count", 1, "")
	flags.BoolVar(&o.resume, "resume", false, "")
	flags.BoolVar(&o.planOnly, "plan", false, "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		return nil, err
	}
	err := o.check(*tierName, *isUnit, flags.Args())
	if err != nil {
		fmt.Fprintln(out, "test.sh: error:", err)
	}
	return o, err
}

func (o *options) check(tierName string, isUnit bool, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("argument %s: unknown", rest[0])
	}
	if o.count < 1 {
		return fmt.Errorf("--count %d: want a number above 0", o.count)
	}
	if isUnit && tierName != "" && tierName != string(unit) {
		return fmt.Errorf("--unit and --tier %s: only one is possible", tierName)
	}
	if isUnit {
		tierName = string(unit)
	}
	if tierName != "" {
		o.tier, o.tierGiven = tier(tierName), true
		if !slices.Contains([]tier{unit, quick, full, soak}, o.tier) {
			return fmt.Errorf("--tier %s: not one of unit, quick, full, soak", tierName)
		}
	}
	if o.tier == unit && len(o.kernels) > 0 {
		return errors.New("--unit and --kernel: only one is possible")
	}
	if o.runText != "" {
		name, _, _ := strings.Cut(o.runText, "/")
		var err error
		if o.run, err = regexp.Compile(name); err != nil {
			return fmt.Errorf("--run: %w", err)
		}
	}
	return o.environment()
}

// limits are how long one process with tests may take.
var limits = map[tier]time.Duration{unit: 10 * time.Minute, quick: 20 * time.Minute, full: 50 * time.Minute, soak: 6 * time.Hour}

func (o *options) environment() error {
	o.jobs, o.limit = runtime.NumCPU()+1, limits[o.tier]
	for name, set := range map[string]func(n int){
		"JOBS":                   func(n int) { o.jobs = n },
		"UBLK_LOOP_TEST_TIMEOUT": func(n int) { o.limit = time.Duration(n) * time.Second },
	} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("%s is %q, want a number above 0", name, text)
		}
		set(n)
	}
	var err error
	o.cache, err = cacheDir()
	return err
}

// cacheDir returns the directory for kernels and other downloads.
func cacheDir() (string, error) {
	if dir := os.Getenv("UBLK_LOOP_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "ublk-loop"), err
}
