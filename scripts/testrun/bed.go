package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// kind is the kind of kernel that a bed runs tests on.
type kind int

const (
	machine kind = iota // in QEMU
	uml                 // in user-mode Linux
	host                // on this machine's own kernel
)

// bed is a place where tests of the kernel run.
type bed struct {
	name   string // in the results: "7.3"
	kernel string // the kernel's argument for vm.sh
	kind   kind
	race   bool   // the code is built with the race detector
	arch   string // the architecture of the kernel and the tests, as Go names it, or "" for this machine's
	has    needs
	sample string   // the value of UBLK_LOOP_SAMPLE, or "" for all variants of each test
	suites []string // the Debian suites whose containerd the tests use
}

// umlKernel is the name of the user-mode kernel in kernels.txt.
const umlKernel = "uml"

// arm64Suffix is the end of the names of kernels for arm64 (vm-kernel.sh).
const arm64Suffix = "-arm64"

// newBed returns the bed of a kernel: a name in kernels.txt, a directory with a kernel,
// or "host".
func newBed(kernel string) *bed {
	b := &bed{name: filepath.Base(kernel), kernel: kernel, suites: []string{"trixie"}}
	_, err := os.Stat(filepath.Join(kernel, "linux"))
	switch {
	case kernel == "host":
		b.kind = host
		b.has = needsOf(ublktest.Machine, ublktest.Plain)
		if runtime.NumCPU() > 1 {
			b.has[ublktest.CPUs] = true
		}
	case kernel == umlKernel || strings.Contains(kernel, "/") && err == nil:
		b.kind = uml
		b.suites = []string{"bookworm", "trixie"}
		b.has = needsOf(ublktest.Own, ublktest.ScratchDisk, ublktest.Engines, ublktest.Containerd, ublktest.Snapshotter,
			ublktest.UtilLinux, ublktest.Suites, ublktest.Plain)
	case strings.HasSuffix(b.name, arm64Suffix):
		b.arch = "arm64"
		b.has = needsOf(ublktest.Own, ublktest.CPUs, ublktest.Machine, ublktest.ScratchDisk, ublktest.Plain)
	default:
		b.has = needsOf(ublktest.Own, ublktest.CPUs, ublktest.Machine, ublktest.ScratchDisk, ublktest.Engines,
			ublktest.Containerd, ublktest.Snapshotter, ublktest.UtilLinux, ublktest.Suites, ublktest.Systemd, ublktest.Plain)
	}
	if suites := strings.Fields(os.Getenv("UBLK_LOOP_CONTAINERD")); len(suites) > 0 {
		b.suites = suites
	} else if kernel == "6.12" {
		b.suites = []string{"bookworm"} // the oldest containerd is on the oldest kernel
	}
	return b
}

// withRace returns the same bed for code that is built with the race detector.
func (b *bed) withRace() *bed {
	r := *b
	r.name, r.race, r.has = b.name+"-race", true, needs{}
	for need := range b.has {
		if need != ublktest.Plain {
			r.has[need] = true
		}
	}
	return &r
}

// matrix returns the beds of a run without --kernel, the best first: the user-mode
// kernel, then the others from the newest to the oldest. It adds the host's own kernel if
// that has ublk and testrun runs as root.
func matrix(top string) ([]*bed, error) {
	out, err := exec.Command(filepath.Join(top, "scripts/vm-kernel.sh"), "--list").Output()
	if err != nil {
		return nil, err
	}
	names := strings.Fields(string(out)) // the oldest first
	slices.Reverse(names)
	var beds []*bed
	for _, name := range names {
		beds = append(beds, newBed(name))
	}
	slices.SortStableFunc(beds, func(a, b *bed) int { return int(b.kind) - int(a.kind) })
	numberSamples(beds)
	if hostHasUblk() {
		beds = append(beds, newBed("host"))
	}
	return beds, nil
}

// numberSamples numbers the virtual machines but the first, the one with the newest kernel. In the tier
// quick they have only tests that another bed has too.
func numberSamples(beds []*bed) {
	number := 0
	for _, b := range beds {
		if b.kind != machine {
			continue
		}
		if number > 0 {
			b.sample = fmt.Sprint(number - 1)
		}
		number++
	}
}

func hostHasUblk() bool {
	if os.Geteuid() != 0 {
		return false
	}
	if _, err := os.Stat("/dev/ublk-control"); err == nil {
		return true
	}
	return exec.Command("modprobe", "-q", "ublk_drv").Run() == nil
}
