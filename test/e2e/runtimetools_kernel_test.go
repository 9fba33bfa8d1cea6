package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// failsFromImage has the results of runtime-tools that are good with a runtime alone, and
// bad if the container has its root from an image.
var failsFromImage = map[string][]string{
	// The program expects no annotations but its own.
	"hooks_stdin": {`the state of the container MUST be passed to "poststop" hook over stdin`},
	// These containers write a file, for which the program looks in the bundle.
	"killsig": {"`kill` operation MUST send the specified signal to the container process"},
	"start": {
		"`start` operation MUST run the user-specified program as specified by `process`",
		"attempting to `start` a container that is not `created` MUST have no effect on the container",
	},
	// The wrapper mounts the image in a mount namespace of its own, and refuses a container
	// that joins another.
	"linux_ns_itype": {"inherit namespace mnt without type"},
	"linux_ns_path":  {"set mnt namespace by path"},
}

// onlyFromImage has the programs that a runtime alone fails, because their bundle is in a
// directory that root of the container's user namespace cannot enter.
var onlyFromImage = []string{"linux_ns_nopath", "linux_uid_mappings"}

// withoutResult has the programs that print no result with a runtime alone, so that only how they end is compared. Programs of
// hooks print an error or nothing, which depends on the order in which processes run. The others need cgroups of version
// 1, AppArmor or SELinux, or do not expect that the runtime refuses the container.
var withoutResult = map[string][]string{
	"runc": append([]string{"linux_mount_label"}, withoutResultInBoth...),
	"crun": withoutResultInBoth,
}

var withoutResultInBoth = []string{
	"hooks", "poststart", "poststart_fail", "poststop", "poststop_fail", "prestart", "prestart_fail",
	"delete_only_create_resources", "linux_cgroups_blkio", "linux_cgroups_cpus", "linux_cgroups_hugetlb", "linux_cgroups_network",
	"linux_process_apparmor_profile", "linux_uid_mappings", "process_rlimits_fail",
}

// programs is the number of programs in runtime-tools.
const programs = 58

func TestKernelRuntimeToolsRunc(t *testing.T) { runtimeTools(t, "runc") }
func TestKernelRuntimeToolsCrun(t *testing.T) { runtimeTools(t, "crun") }

// runtimeTools compares the results of runtime-tools with a runtime alone, with the wrapper
// that passes on all calls, and with roots from images.
func runtimeTools(t *testing.T, runtime string) {
	dir, names := suiteFiles(t, "runtime-tools", "programs/*", programs)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			w := kernelBed(t).wrap(runtime)
			v := validation{wrapped: w, dir: dir, program: name}
			alone := v.with(w.real)
			if has := len(alone) > 1; has == slices.Contains(withoutResult[runtime], name) {
				v.Errorf("with the runtime alone, results are\n%s", strings.Join(alone, "\n"))
			}
			v.expect("passing on", alone, v.with(w.wrapper))
			from := v.with(w.fromImage())
			if slices.Contains(onlyFromImage, v.program) {
				v.expectFailure(alone)
				v.expectSuccess(from)
			} else {
				v.expect("from an image", v.fromImage(alone), from)
			}
		})
	}
}

// validation is a program of runtime-tools.
type validation struct {
	*wrapped
	dir     string // directory of runtime-tools
	program string
}

// with runs the program with a runtime, and returns the results and the exit status.
func (v validation) with(runtime string) []string {
	v.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	cmd := inMountNamespace(ctx, "programs/"+v.program)
	cmd.Dir = v.dir
	cmd.Env = append(os.Environ(), "RUNTIME="+runtime, "TMPDIR="+v.TempDir())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		v.Fatalf("%s with %s does not end:\n%s%s", v.program, runtime, &out, &errOut)
	}
	v.forgetAll()
	v.nothingLeft()
	v.removeImages()
	v.Logf("with %s: %s", filepath.Base(runtime), &errOut)
	return append(results(out.String()), fmt.Sprintf("end: %v", err))
}

// removeImages makes room in memory.
func (v validation) removeImages() {
	v.Helper()
	images, err := filepath.Glob(v.images + "/*")
	if err != nil {
		v.Fatal(err)
	}
	for _, path := range images {
		if err := os.Remove(path); err != nil {
			v.Error(err)
		}
	}
}

// resultLine matches a result in a TAP stream. The first group lacks the number, because
// the programs check things in the random order of Go's maps.
var resultLine = regexp.MustCompile(`(?m)^ *(ok|not ok) [0-9]+( .*)?$`)

// results returns the results in a TAP stream, sorted.
func results(tap string) []string {
	var lines []string
	for _, m := range resultLine.FindAllStringSubmatch(tap, -1) {
		lines = append(lines, m[1]+m[2])
	}
	slices.Sort(lines)
	return lines
}

// expect compares results.
func (v validation) expect(how string, want, got []string) {
	v.Helper()
	if !slices.Equal(got, want) {
		v.Errorf("%s, results are\n%s\nand are with the runtime alone\n%s", how, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// fromImage returns what the results of a runtime alone are for containers from images.
func (v validation) fromImage(alone []string) []string {
	want := slices.Clone(alone)
	for _, result := range failsFromImage[v.program] {
		was := len(want)
		for i, line := range want {
			if line == "ok - "+result {
				want[i] = "not " + line
				was = i
			}
		}
		if was == len(want) {
			v.Errorf("the runtime alone has no result %q", "ok - "+result)
		}
	}
	end := len(want) - 1
	slices.Sort(want[:end])
	return want
}

// failed reports whether a result is bad.
func failed(line string) bool {
	return strings.HasPrefix(line, "not ok") || strings.HasPrefix(line, "end: ") && line != "end: <nil>"
}

func (v validation) expectFailure(lines []string) {
	v.Helper()
	if !slices.ContainsFunc(lines, failed) {
		v.Errorf("the runtime alone passes:\n%s", strings.Join(lines, "\n"))
	}
}

func (v validation) expectSuccess(lines []string) {
	v.Helper()
	if len(lines) < 2 || slices.ContainsFunc(lines, failed) {
		v.Errorf("from an image, results are\n%s", strings.Join(lines, "\n"))
	}
}
