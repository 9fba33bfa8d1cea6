package keysource

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// newTerminal returns the two ends of a terminal: the user's and the program's.
func newTerminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return user, program
}

func lflag(t *testing.T, f *os.File) uint32 {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag
}

func TestReadHidden(t *testing.T) {
	const killLine, eraseKey, eofKey = 0x15, 0x7f, 4
	for _, tt := range []struct {
		typed, want string
		err         error
	}{
		{"secret\n", "secret", nil},
		{"two words \n", "two words ", nil},
		{"wrong" + string(rune(killLine)) + "seccret" + strings.Repeat(string(rune(eraseKey)), 5) + "ret\n", "seret", nil},
		{"\n", "", nil},
		{"secret" + string(rune(eofKey)), "secret", nil},
		{"sec" + string(rune(interruptKey)), "", report.ErrInterrupted},
		{string(rune(eofKey)), "", report.ErrInterrupted},
	} {
		user, program := newTerminal(t)
		before := lflag(t, program)
		type result struct {
			pass *transfer.Secret
			err  error
		}
		read := make(chan result)
		go func() {
			pass, err := readHidden(program)
			read <- result{pass, err}
		}()
		for deadline := time.Now().Add(10 * time.Second); lflag(t, user)&unix.ECHO != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the echo is still on")
			}
		}
		if _, err := user.WriteString(tt.typed); err != nil {
			t.Fatal(err)
		}
		r := <-read
		if !errors.Is(r.err, tt.err) {
			t.Errorf("%q: error %v, want %v", tt.typed, r.err, tt.err)
		}
		if r.err == nil {
			if got := string(r.pass.Bytes()); got != tt.want {
				t.Errorf("%q: read %q", tt.typed, got)
			}
			r.pass.Close()
		}
		if after := lflag(t, program); after != before {
			t.Errorf("%q: the terminal is left as %#x, was %#x", tt.typed, after, before)
		}
		if shown := drain(t, user, program); strings.ContainsAny(shown, "secrt") {
			t.Errorf("%q: shown as %q", tt.typed, shown)
		}
	}
}

// drain returns the terminal's output until a mark.
func drain(t *testing.T, user, program *os.File) string {
	t.Helper()
	const mark = "#"
	if _, err := program.WriteString(mark); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for !strings.HasSuffix(shown.String(), mark) {
		buf := make([]byte, 256)
		n, err := user.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(buf[:n])
	}
	return shown.String()
}
