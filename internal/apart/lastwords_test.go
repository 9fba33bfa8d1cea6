package apart

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// fault is what panics in the process.
const fault = "a fault of the test"

// loudPanic fills the standard error, and panics.
func loudPanic(int) error {
	for range 1 << 10 {
		_, _ = unix.Write(2, []byte(strings.Repeat("x", 1<<10)))
	}
	panic(fault)
}

// The error of a device whose process has ended says how it ended, and the fault in its program. A process
// that says more than anybody reads ends all the same.
func TestKernelLastWords(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.Plain)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[string]string{
		panicRole: ": exit status 2: panic: " + fault + " at attack_test.go:",
		loudRole:  ": exit status 2: xxx",
		diesRole:  ": signal: killed",
	} {
		t.Run(role, func(t *testing.T) {
			file, err := loop.OpenPath(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			p, err := Start("/proc/self/exe", []string{"test", role, "1"}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			dev, err := loop.AttachApart(ctl, []*os.File{file}, loop.Config{}, used{p})
			if err == nil {
				t.Fatal(dev.Close())
			}
			if !strings.Contains(err.Error(), errEnded.Error()+want) {
				t.Errorf("the error is %v, want %q in it", err, want)
			}
		})
	}
}

// The same holds for a process that ends on its way into the sandbox.
func TestKernelLastWordsOfAStart(t *testing.T) {
	ublktest.Kernel(t, ublktest.Plain)
	want := errEnded.Error() + ": exit status 2: panic: " + fault
	if _, err := Start("/proc/self/exe", []string{"test", earlyRole, "1"}, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
}

// A process that writes more than the pipe takes is not stopped by that.
func TestLastWordsNeverBlock(t *testing.T) {
	words, mouth, err := newLastWords()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec dd if=/dev/zero bs=1M count=1 >&2 2>/dev/null")
	cmd.Stderr = mouth // as it is: another open of the pipe would wait
	_ = cmd.Run()      // its write fails
	if ctx.Err() != nil {
		t.Error("a process waits for a reader of its last words")
	}
	_ = mouth.Close()
	if reason := words.reason(); !strings.HasPrefix(reason, `\x00\x00`) {
		t.Errorf("the last words are %q", reason)
	}
}

func TestReasonIn(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"a panic", "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 7 [running]:\npanic({0x1, 0x2})\n\t/go/src/runtime/panic.go:792 +0x1\nx.f(0x1)\n\t/x/loop/f.go:12 +0x2\nx.g()\n\t/x/g.go:3 +0x3\n", "panic: runtime error: index out of range [5] with length 3 at f.go:12"},
		{"paths without their beginning", "fatal error: x\n\nruntime.throw()\n\truntime/panic.go:1 +0x1\nx.f()\n\tgithub.com/x/f.go:9 +0x2\n", "fatal error: x at f.go:9"},
		{"no place", "fatal error: \"all\" is lost", `fatal error: "all" is lost`},
		{"no text", "panic: \x1b[31m\x00\xff\n", `panic: \x1b[31m\x00\xff`},
		{"a hostile place", "panic: x\n\n\t\x1b[31m" + strings.Repeat("y", 3*maxReason) + ".go:1\n", `panic: x at \x1b[31m` + strings.Repeat("y", maxReason-5)},
		{"no end", strings.Repeat("y", 3*maxReason), strings.Repeat("y", maxReason)},
	} {
		if got := reasonIn(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
