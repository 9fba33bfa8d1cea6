package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

func TestUsage(t *testing.T) {
	b := newBench()
	see := "\nhint: see ublk-loop --help\n"
	b.check(t, []string{"nonsense"}, 2, "", `ublk-loop: error: unknown command "nonsense"`+see)
	b.check(t, []string{"-x"}, 2, "", "ublk-loop: error: unknown shorthand flag: 'x' in -x"+see)
	b.check(t, []string{"--json"}, 2, "", "ublk-loop: error: unknown flag: --json"+see)
	b.check(t, []string{"version", "now"}, 2, "", "ublk-loop: error: version: unexpected argument \"now\"\nhint: see ublk-loop version --help\n")
	b.check(t, []string{"features", "now"}, 2, "", "ublk-loop: error: features: unexpected argument \"now\"\nhint: see ublk-loop features --help\n")
	b.out.Reset()
	if status := b.run([]string{"--help"}); status != 0 || !strings.Contains(b.out.String(), "features") {
		t.Errorf("--help: exit status %d, output %s", status, &b.out)
	}
}

// fullOutput is an output that takes no bytes, as /dev/full.
type fullOutput struct{}

func (fullOutput) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// A command whose output is lost fails, also if it prints only help or has done its work.
func TestOutputIsLost(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<14), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]string{
		{"--help"},
		{"help"},
		{"help", "add"},
		{"add", "--help"},
		{"cow", "--help"},
		{"version"},
		{"--version"},
		{"completion", "bash"},
		{"verity", "format", "--hash-file", image + ".tree", image},
	} {
		b := newBench()
		b.app.out = fullOutput{}
		if status := b.run(line); status != 1 || b.errOut.String() != "ublk-loop: error: no space left on device\n" {
			t.Errorf("%q: exit status %d, errors %q", line, status, &b.errOut)
		}
	}
}

// A program that discards the output with a descriptor for reading and writing, as Python does, gets the exit status and no message.
// Standard output that was closed looks the same (report.MayBeClosed).
func TestOutputIsDiscarded(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for _, line := range [][]string{{"list"}, {"list", "--json"}, {"version"}, {"features", "--help"}} {
		b := newBench()
		b.drv.devices = someDevices()
		b.app.out = null
		b.check(t, line, 0, "", "")
	}
}

// The hint about an unknown command names the commands that the user may mean.
func TestUnknownCommand(t *testing.T) {
	b := newBench()
	for _, tt := range []struct{ typed, hint string }{
		{"delete", "did you mean del? see ublk-loop --help"},
		{"detach", "did you mean del? see ublk-loop --help"},
		{"attach", "did you mean add? see ublk-loop --help"},
		{"ls", "did you mean list? see ublk-loop --help"},
		{"lits", "see ublk-loop --help"},
		{"ad", "did you mean add? see ublk-loop --help"},
		{"re", "did you mean recover or resize? see ublk-loop --help"},
		{"", "see ublk-loop --help"},
	} {
		b.check(t, []string{tt.typed, "0"}, 2, "", fmt.Sprintf("ublk-loop: error: unknown command %q\nhint: %s\n", tt.typed, tt.hint))
	}
}

// Without a command, the program prints its help to standard error and exits with 2.
func TestNoCommand(t *testing.T) {
	b := newBench()
	status := b.run(nil)
	if status != 2 || b.out.Len() > 0 || !strings.Contains(b.errOut.String(), "Available Commands:") || strings.Contains(b.errOut.String(), "error:") {
		t.Errorf("exit status %d, output %q, errors %q", status, &b.out, &b.errOut)
	}
}

// Help names a flag's value in the user's words, and shows no empty or meaningless
// default.
func TestHelpOfFlags(t *testing.T) {
	for _, cmd := range newRootCommand(&newBench().app).Commands() {
		usage := cmd.Flags().FlagUsages()
		for _, unwanted := range []string{"(default )", "(default -1)", " int ", " uint ", " string ", " duration "} {
			if strings.Contains(usage, unwanted) {
				t.Errorf("the help of %s has %q:\n%s", cmd.Name(), unwanted, usage)
			}
		}
	}
}

// The help of each command fits into a terminal of 80 characters.
func TestHelpFits(t *testing.T) {
	var paths func(cmd *cobra.Command) [][]string
	paths = func(cmd *cobra.Command) [][]string {
		all := [][]string{strings.Fields(cmd.CommandPath())[1:]}
		for _, sub := range cmd.Commands() {
			all = append(all, paths(sub)...)
		}
		return all
	}
	for _, path := range paths(newRootCommand(&newBench().app)) {
		b := newBench()
		if status := b.run(append([]string{"help"}, path...)); status != 0 || b.out.Len() == 0 {
			t.Errorf("help %q: exit status %d, output %q, errors %q", path, status, &b.out, &b.errOut)
		}
		for line := range strings.Lines(b.out.String()) {
			if utf8.RuneCountInString(line) > 81 || strings.Contains(line, "`") {
				t.Errorf("help %q has the line %q", path, line)
			}
		}
	}
}

// The shell completes values of flags.
func TestCompletesValues(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"add", "--on-crash", ""}, "fail\nrequeue\nreissue\n:4\n"},
		{[]string{"serve", "--on-crash", ""}, "fail\nrequeue\nreissue\n:4\n"},
		{[]string{"add", "--direct-io", ""}, "auto\non\noff\n:4\n"},
		{[]string{"add", "--transfer", ""}, "none\nxor\naes-xts-plain64\naes-xts-plain\n:4\n"},
		{[]string{"verity", "format", "--hash", ""}, "sha256\nsha512\nsha1\n:4\n"},
		{[]string{"add", "--key-file", ""}, ":0\n"},
	} {
		b := newBench()
		if status := b.run(append([]string{"__complete"}, tt.args...)); status != 0 || b.out.String() != tt.want {
			t.Errorf("%q: exit status %d, output %q", tt.args, status, &b.out)
		}
	}
}

// The error of a time says what a time is.
func TestTimeFlags(t *testing.T) {
	for _, args := range [][]string{{"add", "f", "--autoclear=x"}, {"top", "--interval=x"}, {"hook", "sweep", "--older-than=x"}} {
		name, _, _ := strings.Cut(args[len(args)-1], "=")
		newBench().check(t, args, 2, "", fmt.Sprintf("ublk-loop: error: %s \"x\": not a time, such as 500ms, 10s or 1m\nhint: see ublk-loop %s --help\n",
			name, strings.Join(slices.DeleteFunc(args[:len(args)-1], func(arg string) bool { return arg == "f" }), " ")))
	}
}

// The manual describes each command and each of its flags, and no others.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/ublk-loop.8")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(manual), "\n.SH COMMANDS")
	text, _, _ = strings.Cut(text, "\n.SH ")
	described := map[string][]string{}
	for _, section := range strings.Split(text, "\n.SS ")[1:] {
		name := regexp.MustCompile(`[a-z]+`).FindString(section)
		described[name] = manualFlags(section)
	}
	delete(described, "completion") // made by cobra
	for _, cmd := range newRootCommand(&newBench().app).Commands() {
		if got, want := described[cmd.Name()], commandFlags(cmd); !slices.Equal(got, want) {
			t.Errorf("%s: the manual has the flags %q, the command %q", cmd.Name(), got, want)
		}
		delete(described, cmd.Name())
	}
	if len(described) > 0 {
		t.Errorf("the manual has commands that there are not: %v", described)
	}
}

// manualFlags returns the flags that have a paragraph in the section, with their short
// names.
func manualFlags(section string) []string {
	flags := []string{}
	heading := regexp.MustCompile(`(?m)^\.TP\n\.BR? (?:(\\-[a-zA-Z]) ", " )?(\\-\\-[a-z\\-]+)`)
	for _, m := range heading.FindAllStringSubmatch(section, -1) {
		flags = append(flags, strings.ReplaceAll(m[1]+m[2], `\`, ""))
	}
	slices.Sort(flags)
	return flags
}

// commandFlags returns the flags of a command and of its subcommands.
func commandFlags(cmd *cobra.Command) []string {
	flags := []string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + name
		}
		flags = append(flags, name)
	})
	for _, sub := range cmd.Commands() {
		flags = append(flags, commandFlags(sub)...)
	}
	slices.Sort(flags)
	return flags
}

// Each signal with which a user or a terminal interrupts a command ends its context.
func TestInterruptible(t *testing.T) {
	for _, s := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		if signal.Ignored(s) {
			t.Skipf("%v is ignored", s)
		}
		ctx, stop := interruptible(t.Context())
		if err := unix.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
		if cause := context.Cause(ctx); !errors.Is(cause, report.ErrInterrupted) {
			t.Errorf("%v: cause %v, want %v", s, cause, report.ErrInterrupted)
		}
		stop()
	}
}

// An interrupted command finishes what it does, and begins nothing else.
func TestFinish(t *testing.T) {
	finished := false
	err := finish(t.Context(), func(ctx context.Context) error {
		if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
			return err
		}
		<-ctx.Done()
		b := delBench()
		errs := (&delOptions{}).removeAll(ctx, b.drv, []target{{id: 0}, {id: 1}})
		if len(errs) != 1 || !errors.Is(errs[0], report.ErrInterrupted) || len(b.drv.ids()) != 4 {
			t.Errorf("del: errors %v, left are %v", errs, b.drv.ids())
		}
		if err := b.runResize(ctx, resizeOptions{target: "1"}); !errors.Is(err, report.ErrInterrupted) || len(b.drv.resized) > 0 {
			t.Errorf("resize: error %v, resized %v", err, b.drv.resized)
		}
		finished = true
		return unix.EBUSY
	})
	if !finished || !errors.Is(err, unix.EBUSY) {
		t.Errorf("finished %v, error %v; want that of the change", finished, err)
	}
}

// An empty text, such as that of a variable that is not set, is not taken for a flag that is not given.
func TestEmptyFlags(t *testing.T) {
	path := someFile(t)
	for _, args := range [][]string{
		{"add", path, "--root-hash", ""},
		{"add", path, "--hash-file", ""},
		{"add", path, "--root-hash-signature", ""},
		{"add", path, "--key-file", ""},
		{"add", path, "--header", ""},
		{"add", path, "--log-file", ""},
		{"add", "--table", ""},
		{"serve", "--metrics", ""},
		{"serve", "--log-file", ""},
		{"cow", "create", path + "x", "--origin", ""},
		{"cow", "merge", path, "--base", ""},
		{"verity", "verify", path, "--root-hash", ""},
		{"top", "--socket", ""},
		{"upgrade", "--socket", ""},
		{"fork", "0", path + "x", "--socket", ""},
		{"key", "0", "--socket", ""},
		{"merge", "0", "--socket", ""},
		{"list", "--socket", ""},
		{"oci", "--runtime", ""},
	} {
		b := newBench()
		if status := b.run(args); status != 2 || b.out.Len() > 0 || !strings.Contains(b.errOut.String(), ` "": it is empty`+"\nhint: see ublk-loop "+args[0]) || len(b.jobs) > 0 {
			t.Errorf("%q: exit status %d, output %q, errors %q", args, status, &b.out, &b.errOut)
		}
	}
}
