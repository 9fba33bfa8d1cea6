package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// kernelJob runs tests of one package on one bed.
type kernelJob struct {
	*builder
	bed   *bed
	pkg   *pkg
	tests []string
	needs needs // the equipment that any of the tests needs
}

// Paths inside a virtual machine.
const (
	guestDir         = "/vm/tests"
	guestProgram     = "/usr/bin/ublk-loop"
	guestSnapshotter = "/usr/bin/ublk-loop-snapshotter"
	guestContainerd  = "/vm/containerd"
	guestUtilLinux   = "/vm/util-linux"
)

// command waits for the supplies that the job needs, and returns its process.
func (k *kernelJob) command(ctx context.Context, console string) (*exec.Cmd, error) {
	binary, err := k.supplies.tests(k.pkg, k.bed.build())
	if err != nil {
		return nil, err
	}
	program, err := k.supplies.ublkLoop(k.bed.build())
	if err != nil {
		return nil, err
	}
	if k.bed.kind == host {
		cmd := exec.CommandContext(ctx, binary, k.arguments()...)
		cmd.Dir = filepath.Join(k.top, k.pkg.Dir)
		cmd.Env = append(os.Environ(), "UBLK_LOOP_BIN="+program, "UBLK_LOOP_HAS="+k.has())
		return cmd, nil
	}
	if _, err := k.supplies.kernel(k.bed.kernel); err != nil {
		return nil, err
	}
	extra, err := k.extras()
	if err != nil {
		return nil, err
	}
	name := path.Base(k.pkg.Dir) + ".test"
	args := []string{
		"run", k.bed.kernel, "--timeout", seconds(k.limit), "--console", console, "--disk", "2G",
		"--file", binary + ":" + guestDir + "/" + name, "--file", program + ":" + guestProgram,
	}
	args = append(append(args, extra...), "--", "env", "--chdir="+guestDir)
	args = append(append(args, k.settings()...), "./"+name)
	cmd := exec.CommandContext(ctx, filepath.Join(k.top, "scripts/vm.sh"), append(args, k.arguments()...)...)
	return cmd, nil
}

func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }

// extras returns the arguments of vm.sh for everything that the machine gets besides the
// programs under test.
func (k *kernelJob) extras() ([]string, error) {
	var args []string
	if data := filepath.Join(k.top, k.pkg.Dir, "testdata"); isDir(data) {
		args = append(args, "--dir", data+":"+guestDir+"/testdata")
	}
	if k.needs[ublktest.Snapshotter] {
		program, err := k.supplies.snapshotter()
		if err != nil {
			return nil, err
		}
		args = append(args, "--file", program+":"+guestSnapshotter)
	}
	for _, i := range k.images() {
		path, err := i.supply()
		if err != nil {
			return nil, err
		}
		args = append(args, "--image", path)
	}
	if k.needs[ublktest.UtilLinux] {
		dir, err := k.supplies.utilLinux()
		if err != nil {
			return nil, err
		}
		args = append(args, "--dir", dir+":"+guestUtilLinux)
	}
	if k.needs[ublktest.Containerd] {
		for _, suite := range k.bed.suites {
			dir, err := k.supplies.containerd(suite)
			if err != nil {
				return nil, err
			}
			args = append(args, "--dir", dir+":"+guestContainerd+"/"+suite)
		}
	}
	return args, nil
}

// image is a read-only disk for tests with a need.
type image struct {
	need     ublktest.Need
	variable string // names the disk for the tests
	supply   func() (string, error)
}

// images returns the images that the job needs, in the order of their disks. The scratch
// disk is before them.
func (k *kernelJob) images() []image {
	all := []image{
		{ublktest.Engines, "UBLK_LOOP_ENGINES", k.supplies.engines},
		{ublktest.Suites, "UBLK_LOOP_SUITES", k.supplies.suites},
	}
	return slices.DeleteFunc(all, func(i image) bool { return !k.needs[i.need] })
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// settings returns the environment of the tests in a virtual machine.
func (k *kernelJob) settings() []string {
	settings := []string{
		"UBLK_LOOP_HAS=" + k.has(), "UBLK_LOOP_BIN=" + guestProgram, "UBLK_LOOP_DISK=/dev/vda",
		"UBLK_LOOP_SNAPSHOTTER=" + guestSnapshotter, "UBLK_LOOP_CONTAINERD=" + guestContainerd,
		"UBLK_LOOP_UTIL_LINUX=" + guestUtilLinux,
	}
	if k.short && k.bed.sample != "" {
		settings = append(settings, "UBLK_LOOP_SAMPLE="+k.bed.sample)
	}
	if k.bed.race {
		settings = append(settings, raceSettings)
	}
	for n, i := range k.images() {
		settings = append(settings, fmt.Sprintf("%s=/dev/vd%c", i.variable, 'b'+n))
	}
	for _, name := range countVariables {
		if value := os.Getenv(name); value != "" {
			settings = append(settings, name+"="+value)
		}
	}
	return settings
}

// has returns what the machine has. It includes equipment that takes a supply only if a
// test of this job needs it.
func (k *kernelJob) has() string {
	has := needs{}
	for need := range k.bed.has {
		switch need {
		case ublktest.Engines, ublktest.Suites, ublktest.Containerd, ublktest.Snapshotter, ublktest.UtilLinux:
			has[need] = k.needs[need]
		default:
			has[need] = true
		}
	}
	for need, is := range has {
		if !is {
			delete(has, need)
		}
	}
	return has.list()
}

// arguments returns the arguments of the test binary. The verbosity of test2json marks
// which test each line of output belongs to.
func (k *kernelJob) arguments() []string {
	quoted := make([]string, len(k.tests))
	for i, name := range k.tests {
		quoted[i] = regexp.QuoteMeta(name)
	}
	pattern := "^(" + strings.Join(quoted, "|") + ")$" + k.subtests
	args := []string{"-test.v=test2json", "-test.run", pattern, "-test.timeout", seconds(k.limit-time.Minute) + "s"}
	if k.count > 1 {
		args = append(args, fmt.Sprintf("-test.count=%d", k.count))
	}
	if k.short {
		args = append(args, "-test.short")
	}
	return args
}
