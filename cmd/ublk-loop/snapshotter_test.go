package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

func TestFindSnapshotter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sbin")
	beside, libexec := filepath.Join(dir, snapshotterProgram), filepath.Join(dir, "../libexec/ublk-loop", snapshotterProgram)
	if _, err := findSnapshotter(dir); !errors.Is(err, unix.ENOENT) || report.Hint(err) == "" {
		t.Errorf("not installed: %v", err)
	}
	if _, err := findSnapshotter("/usr/bin"); err != nil && strings.Count(err.Error(), "/usr/libexec") != 1 {
		t.Errorf("not installed: %v", err)
	}
	for _, program := range []string{libexec, beside} { // the later one has precedence
		if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if found, err := findSnapshotter(dir); err != nil || found != program {
			t.Errorf("found %s, error %v, want %s", found, err, program)
		}
	}
	if err := os.Chmod(beside, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := findSnapshotter(dir); !errors.Is(err, unix.EACCES) {
		t.Errorf("one that cannot be executed: %v", err)
	}
}

// All flags reach the program, including --help.
func TestSnapshotterArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"--root", "/x", "--size=1G"}} {
		var got []string
		a := newApp()
		a.snapshotter = func(args []string) error { got = args; return nil }
		if status := a.run(append([]string{"snapshotter"}, args...)); status != report.ExitDone || !slices.Equal(got, args) {
			t.Errorf("%q: status %d, called with %q", args, status, got)
		}
	}
}

// Help works without the program.
func TestSnapshotterHelpWithoutProgram(t *testing.T) {
	b := newBench()
	b.snapshotter = func([]string) error { _, err := findSnapshotter("/nonexistent"); return err }
	for _, arg := range []string{"--help", "-h"} {
		b.out.Reset()
		b.errOut.Reset()
		if status := b.run([]string{"snapshotter", arg}); status != 0 || !strings.Contains(b.out.String(), snapshotterProgram) || b.errOut.Len() > 0 {
			t.Errorf("%s: exit status %d, output %q, errors %q", arg, status, &b.out, &b.errOut)
		}
	}
	if status := b.run([]string{"snapshotter"}); status != 1 || !strings.Contains(b.errOut.String(), "hint: ") {
		t.Errorf("exit status %d, errors %q", status, &b.errOut)
	}
}
