package transfer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newSecret(t testing.TB, content []byte) *Secret {
	t.Helper()
	s, err := NewSecret(len(content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	copy(s.Bytes(), content)
	return s
}

// mapping returns the section of /proc/self/smaps for the mapping that starts
// at an address, by the names of its lines.
func mapping(t *testing.T, mem []byte) map[string]string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(smaps), fmt.Sprintf("%x-", &mem[0]))
	if !found {
		t.Fatal("no mapping starts where the secret does")
	}
	lines := map[string]string{}
	for line := range strings.Lines(section) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		lines[name] = strings.TrimSpace(value)
		if name == "VmFlags" {
			return lines
		}
	}
	t.Fatal("no VmFlags")
	return nil
}

func TestSecretMemory(t *testing.T) {
	s := newSecret(t, []byte("key"))
	lines := mapping(t, s.Bytes())
	flags := strings.Fields(lines["VmFlags"])
	for flag, what := range map[string]string{"lo": "locked", "dd": "left out of dumps", "dc": "left out of children"} {
		if !slices.Contains(flags, flag) {
			t.Errorf("not %s: %v", what, flags)
		}
	}
	if lines["Locked"] == "0 kB" {
		t.Error("nothing is locked")
	}
}

// backedByFile replaces the secret's memory by a mapping of a file, so that a
// test can read its content after it has been unmapped.
func backedByFile(t *testing.T, s *Secret) (fd int) {
	t.Helper()
	fd, err := unix.MemfdCreate("secret", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Ftruncate(fd, int64(len(s.mem))); err != nil {
		t.Fatal(err)
	}
	at := unsafe.Pointer(&s.mem[0])
	if _, err := unix.MmapPtr(fd, 0, at, uintptr(len(s.mem)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestSecretCloseWipes(t *testing.T) {
	s := newSecret(t, nil)
	s.Truncate(len("key"))
	fd := backedByFile(t, s)
	copy(s.Bytes(), "key")
	content := make([]byte, 3)
	read := func() string {
		t.Helper()
		if _, err := unix.Pread(fd, content, 0); err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	if got := read(); got != "key" {
		t.Fatalf("the test looks elsewhere: %q", got)
	}
	s.Close()
	if got := read(); got != "\x00\x00\x00" {
		t.Errorf("left behind: %q", got)
	}
	if len(s.Bytes()) != 0 {
		t.Error("has bytes still")
	}
	s.Close()
}

func TestReadSecret(t *testing.T) {
	page := os.Getpagesize()
	for _, n := range []int{0, 1, 64, page - 1, page, page + 1, 5*page + 3} {
		content := bytes.Repeat([]byte("key"), n/3+1)[:n]
		s, err := ReadSecret(iotest.HalfReader(bytes.NewReader(content)), n)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(s.Bytes(), content) {
			t.Errorf("%d bytes: others", n)
		}
		s.Close()
		if n == 0 {
			continue
		}
		if _, err := ReadSecret(bytes.NewReader(content), n-1); !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes, limit one less: error %v", n, err)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadSecret(iotest.ErrReader(broken), 1); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: error %v", err)
	}
}

func TestSecretTruncate(t *testing.T) {
	s := newSecret(t, []byte("key\n"))
	s.Truncate(3)
	if string(s.Bytes()) != "key" || s.mem[3] != 0 {
		t.Errorf("content %q, then %d", s.Bytes(), s.mem[3])
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	s := newSecret(t, []byte("key"))
	holder := struct{ Key *Secret }{s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{s, holder} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "key") || strings.Contains(got, "6b6579") || strings.Contains(got, "107") {
				t.Errorf("%s: %s", verb, got)
			}
		}
	}
	if out, err := json.Marshal(holder); err == nil {
		t.Errorf("as JSON: %s", out)
	}
}
