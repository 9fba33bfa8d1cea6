package keysource

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// pipeWith returns a pipe that has a text, and whose other end is closed.
func pipeWith(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

// passed returns a descriptor of a file as the starter of a program passes it: without FD_CLOEXEC.
func passed(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// A key can be a part of a file or of what a descriptor has.
func TestReadPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		offset, size uint64
		want, err    string
	}{
		{0, 0, "0123456789", ""},
		{3, 0, "3456789", ""},
		{3, 4, "3456", ""},
		{0, 10, "0123456789", ""},
		{9, 1, "9", ""},
		{0, 11, "", "10 bytes, fewer than 11"},
		{3, 8, "", "7 bytes, fewer than 8"},
		{10, 0, "", "empty"},
		{99, 1, "", "empty"},
		{0, 65, "", "more than 64"},
		{1 << 63, 0, "", "invalid"},
	} {
		for kind, s := range map[string]*Source{
			"file": {Kind: File, File: path, Offset: tt.offset, Size: tt.size},
			"pipe": {Kind: Descriptor, FD: passed(t, pipeWith(t, "0123456789")), Offset: tt.offset, Size: tt.size},
		} {
			key, _, err := s.read(t.Context(), 64)
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s, %d from %d on: error %v, want %q", kind, tt.size, tt.offset, err, tt.err)
				}
			case err != nil || string(key.Bytes()) != tt.want:
				t.Errorf("%s, %d from %d on: %v, error %v, want %q", kind, tt.size, tt.offset, key, err, tt.want)
			}
		}
	}
}

// A passphrase is a line. The next line is for others.
func TestReadPassphrase(t *testing.T) {
	f := pipeWith(t, "first line\nrest")
	if !isStream(f) {
		t.Error("a pipe is no stream")
	}
	pass, err := readPassphrase(f)
	if err != nil || string(pass.Bytes()) != "first line" {
		t.Errorf("%v, error %v", pass, err)
	}
	if rest, err := io.ReadAll(f); err != nil || string(rest) != "rest" {
		t.Errorf("the rest is %q, error %v", rest, err)
	}
	for text, want := range map[string]string{"no end": "no end", strings.Repeat("x", maxLine-1) + "\n": strings.Repeat("x", maxLine-1)} {
		if pass, err := readPassphrase(pipeWith(t, text)); err != nil || string(pass.Bytes()) != want {
			t.Errorf("%.20q: %v, error %v", text, pass, err)
		}
	}
	for _, text := range []string{"", "\n", "\nsecond", strings.Repeat("x", maxLine+1)} {
		if pass, err := readPassphrase(pipeWith(t, text)); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "standard input") {
			t.Errorf("%.20q: %v, error %v", text, pass, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if isStream(null) {
		t.Error("/dev/null is a stream")
	}
}
