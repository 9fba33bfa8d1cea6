package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

func TestServerEnv(t *testing.T) {
	got := serverEnv([]string{"HOME=/root", "GODEBUG=x=1", "SECRET=GO", "GOTRACEBACK=all", "GOGC=1", "GOMEMLIMIT=1MiB", "GOMAXPROCS=1", "GO=x", "NOTIFY_SOCKET=/x"})
	if want := []string{"GODEBUG=x=1", "GOTRACEBACK=all"}; !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
	if serverEnv(nil) == nil {
		t.Error("no environment is the caller's")
	}
}

// Ready returns the server's answer, or an error if the server ends without one.
func TestReady(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       error
		hint       string
	}{
		{"error", `{"error":"no room","hint":"make some"}` + "\n", errors.New("no room"), "make some"},
		{"nothing", "", errServerEnded, ""},
		{"half a line", `{"err`, errServerEnded, ""},
		{"device", `{"status":{"device":"/nonexistent/x"}}` + "\n", errors.New("open /nonexistent/x: watch /nonexistent: no such file or directory"), ""},
	} {
		add, control := socketFiles(t)
		if _, err := io.WriteString(control, tt.text); err != nil {
			t.Fatal(err)
		}
		if tt.name != "device" {
			control.Close()
		}
		_, err := (&background{ctx: context.Background(), control: add}).Ready()
		if err == nil || err.Error() != tt.want.Error() || report.Hint(err) != tt.hint {
			t.Errorf("%s: %v, hint %q", tt.name, err, report.Hint(err))
		}
	}
}

// Both a signal and the end of the server end the wait for the device node.
func TestReadyIsCutShort(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(cancel context.CancelCauseFunc, control *os.File)
		want error
	}{
		{"signal", func(cancel context.CancelCauseFunc, _ *os.File) { cancel(report.ErrInterrupted) }, report.ErrInterrupted},
		{"end", func(_ context.CancelCauseFunc, control *os.File) { control.Close() }, errServerEnded},
	} {
		add, control := socketFiles(t)
		node := t.TempDir() + "/node"
		if err := json.NewEncoder(control).Encode(answer{Device: &client.Device{Device: node}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		cut := time.AfterFunc(50*time.Millisecond, func() { tt.cut(cancel, control) })
		defer cut.Stop()
		_, err := (&background{ctx: ctx, control: add}).Ready()
		if !errors.Is(err, tt.want) { // a wait to its end would have another error
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// An interrupt before the server's answer makes Ready return ErrInterrupted.
func TestReadyInterrupted(t *testing.T) {
	add, _ := socketFiles(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	cut := time.AfterFunc(50*time.Millisecond, func() { cancel(report.ErrInterrupted) })
	defer cut.Stop()
	if _, err := (&background{ctx: ctx, control: add}).Ready(); !errors.Is(err, report.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
}

// A server that takes over a device may answer after an interrupt, and serves the device then.
func TestReadyInterruptedTakeover(t *testing.T) {
	ours, control := socketFiles(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(report.ErrInterrupted)
	answered := time.AfterFunc(50*time.Millisecond, func() { // after Ready has seen the interrupt
		if err := json.NewEncoder(control).Encode(answer{Device: &client.Device{Device: "/dev/x"}}); err != nil {
			t.Error(err)
		}
	})
	defer answered.Stop()
	if d, err := (&background{ctx: ctx, control: ours, recovers: true}).Ready(); err != nil || d.Device != "/dev/x" {
		t.Errorf("%v, error %v", d, err)
	}
}

// A server that does not answer soon after an interrupt goes on without its starter.
func TestReadyInterruptedTakeoverHangs(t *testing.T) {
	t.Parallel() // it waits for takeoverPatience
	ours, _ := socketFiles(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(report.ErrInterrupted)
	if _, err := (&background{ctx: ctx, control: ours, recovers: true}).Ready(); !errors.Is(err, report.ErrInterrupted) {
		t.Errorf("error %v", err)
	}
}

// Abandon says how a server ended that has not ended in order.
func TestAbandonSaysHowTheServerEnded(t *testing.T) {
	for script, want := range map[string]string{"exit 0": "", "exit 1": "", "exit 2": "end of the server: exit status 2", "kill -SEGV $$": "end of the server: signal: segmentation fault"} {
		lifeline, theirs, err := process.NewLifeline()
		if err != nil {
			t.Fatal(err)
		}
		add, _ := socketFiles(t)
		server := exec.Command("sh", "-c", "ulimit -c 0; "+script)
		if err := errors.Join(server.Start(), theirs.Close()); err != nil {
			t.Fatal(err)
		}
		got := (&background{control: add, process: server.Process, lifeline: lifeline, recovers: true, ends: true}).Abandon()
		if (want == "") != (got == nil) || got != nil && got.Error() != want {
			t.Errorf("%s: %v, want %q", script, got, want)
		}
	}
}

// Abandon waits for a process that outlives its killed server.
func TestAbandonWaitsForOrphans(t *testing.T) {
	lifeline, theirs, err := process.NewLifeline()
	if err != nil {
		t.Fatal(err)
	}
	add, _ := socketFiles(t)
	server := exec.Command("sh", "-c", `sleep 3600 >&- 2>&- & echo $!`)
	server.ExtraFiles = []*os.File{theirs}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var orphan int
	if _, err := fmt.Fscan(out, &orphan); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { // received below
		gone <- (&background{control: add, process: server.Process, lifeline: lifeline}).Abandon()
	}()
	select {
	case err := <-gone:
		t.Errorf("it does not wait: error %v", err)
		gone <- nil
	case <-time.After(50 * time.Millisecond):
	}
	if err := unix.Kill(orphan, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
}
