package backing

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newFile makes a sparse file of a size.
func newFile(t testing.TB, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// openPath opens a path for a test.
func openPath(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestOpenPathRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo, link, dangling := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	socket := filepath.Join(dir, "socket")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(dir, link), os.Symlink("nothing", dangling)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	file, err := os.Open(newFile(t, "file", 512))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()

	for _, tt := range []struct {
		path string
		want error
		text string // a text in the error besides the path
	}{
		{dir, unix.EISDIR, "is a directory"},
		{link, unix.EISDIR, "is a directory"},
		{fifo, unix.EINVAL, "a FIFO"},
		{socket, unix.EINVAL, "a socket"},
		{"/dev/null", unix.EINVAL, "a character device"},
		{dangling, unix.ENOENT, "no such file"},
		{filepath.Join(dir, "missing"), unix.ENOENT, "no such file"},
		{"", unix.ENOENT, `open "": no such file`},
		{filepath.Join(fifo, "below"), unix.ENOTDIR, "not a directory"},
		{"", unix.ENOENT, "no such file"},
		{fmt.Sprintf("/proc/self/fd/%d", file.Fd()), unix.ELOOP, "symbolic links"},
	} {
		f, err := OpenPath(tt.path)
		if err == nil {
			_ = f.Close()
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.path, err, tt.want)
			continue
		}
		if !strings.Contains(err.Error(), tt.path) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: error %q lacks the path or %q", tt.path, err, tt.text)
		}
	}
}

// The error of a relative path has the absolute path.
func TestOpenPathErrorIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	want := "open " + filepath.Join(dir, "missing") + ": "
	if _, err := OpenPath("missing"); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// If a link changes or a file is replaced after OpenPath, the object that was found is
// opened.
func TestOpenPathFollowsOnce(t *testing.T) {
	found, other := newFile(t, "found", 4096), newFile(t, "other", 8192)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(found, link); err != nil {
		t.Fatal(err)
	}
	f := openPath(t, link)
	if f.Name() != found {
		t.Errorf("name %q, want %q", f.Name(), found)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(other, link), os.Rename(other, found)); err != nil {
		t.Fatal(err)
	}
	b, err := Open(f, &Options{LockDir: locksOf(found)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if b.Size != 4096 {
		t.Errorf("size %d: another file was opened", b.Size)
	}
}
