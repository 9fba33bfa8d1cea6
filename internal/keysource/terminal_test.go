package keysource

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/internal/ptytest"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/transfer"
)

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
		user, program := ptytest.New(t)
		before := ptytest.LocalFlags(t, program)
		type result struct {
			pass *transfer.Secret
			err  error
		}
		read := make(chan result)
		go func() {
			pass, err := readHidden(t.Context(), program)
			read <- result{pass, err}
		}()
		awaitEcho(t, user, 0)
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
		if after := ptytest.LocalFlags(t, program); after != before {
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
