package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/flock"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// One server at a time listens at a path, also when others end and remove its files.
func TestListenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	var listening, turns atomic.Int32
	var servers sync.WaitGroup
	for range 8 {
		servers.Go(func() {
			for turns.Load() < 2000 {
				lock, socket, err := listen(path)
				if err != nil {
					continue // another server listens
				}
				turns.Add(1)
				if n := listening.Add(1); n != 1 || !flock.IsAt(lock, path+lockSuffix) {
					t.Errorf("%d servers listen, or a lock is lost", n)
				}
				listening.Add(-1)
				removeSocket(lock, path)
				_, _ = lock.Close(), socket.Close()
			}
		})
	}
	servers.Wait()
}

// Only the directory of the socket is private.
func TestListenMakesDirectory(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(run, "ublk-loop", "socket")
	lock, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = lock.Close(), socket.Close() }()
	for path, want := range map[string]os.FileMode{run: 0o755, filepath.Dir(path): 0o700} {
		if made, err := os.Stat(path); err != nil || made.Mode().Perm() != want {
			t.Errorf("%s: %v, error %v; want mode %o", path, made, err, want)
		}
	}
}

// A server replaces the socket of a server that was killed, but nothing else.
func TestListenKeepsOtherFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.WriteFile(at("file"), []byte("data"), 0o600), os.Mkdir(at("directory"), 0o700), os.Symlink("file", at("link"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "directory", "link"} {
		if _, _, err := listen(at(name)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := os.Lstat(at(name)); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(at(name) + lockSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: its lock is left: %v", name, err)
		}
	}
	for range 2 { // the second finds the socket of the first
		lock, socket, err := listen(at("socket"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = lock.Close(), socket.Close()
	}
}

// A server does not take the place of a socket at which a service manager listens, which has no lock. It does not
// start the manager's service.
func TestListenBesideManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	manager, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	manager.SetUnlinkOnClose(false)
	if _, _, err := listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("beside a service manager: error %v", err)
	}
	if err := manager.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the manager gets a connection: error %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("connect to the manager: %v", err)
	} else {
		_ = c.Close()
	}
	if _, err := os.Lstat(path + lockSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its lock is left: %v", err)
	}
	// The kernel closes the socket of a killed server a moment after its lock.
	time.AfterFunc(10*time.Millisecond, func() { _ = manager.Close() })
	lock, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = lock.Close(), socket.Close()
}

// A server removes its socket also if the path was relative to the directory in which it was started.
func TestRelativeSocket(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	o := ServeOptions{Socket: "socket", Getenv: func(string) string { return "" }}
	task, files, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	removeSocket(files[lockFile], task.Socket)
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left are %v, error %v", left, err)
	}
}

// A server that has removed its socket leaves that of the next server, and a socket of the service
// manager has no lock.
func TestRemoveSocketOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	lock, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	defer socket.Close()
	removeSocket(lock, path)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
	nextLock, next, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer nextLock.Close()
	defer next.Close()
	removeSocket(lock, path)
	removeSocket(nil, path)
	for _, name := range []string{path, path + lockSuffix} {
		if _, err := os.Lstat(name); err != nil {
			t.Error(err)
		}
	}
}

// A service manager has replaced the socket of a server with its own. The server does not remove that.
func TestRemoveSocketOfManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	lock, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	defer socket.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	manager, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	removeSocket(lock, path)
	if !isOpen(path) {
		t.Error("the socket of the service manager is removed")
	}
	if _, err := os.Lstat(path + lockSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is left: %v", err)
	}
}

// A server of an earlier version has written nothing to its lock.
func TestRemoveSocketOfEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	lock, socket, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	defer socket.Close()
	if err := lock.Truncate(0); err != nil {
		t.Fatal(err)
	}
	removeSocket(lock, path)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// Errors of sockets are in words of the system, and say what can be done.
func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	lock, socket, err := listen(at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(lock.Close(), socket.Close()) })
	path := func(name string) error {
		_, _, err := listen(at(name))
		return err
	}
	tcp := func(address string) error {
		_, err := listenTCP(address)
		return err
	}
	long := strings.Repeat("x", 120)
	for _, tt := range []struct {
		err        error
		want, hint string
	}{
		{path("socket"), "listen at " + at("socket") + ": another server listens there: address already in use", "ublk-loop upgrade gives it a new program; --socket names another socket"},
		{path(long), "listen at " + at(long) + ": file name too long", "the path of a socket has at most 107 bytes"},
		{tcp("nonsense"), "listen for metrics at nonsense: missing port in address", "an address is HOST:PORT or :PORT"},
		{tcp(":99999"), "listen for metrics at :99999: invalid port", "an address is HOST:PORT or :PORT"},
		{tcp("192.0.2.1:80"), "listen for metrics at 192.0.2.1:80: cannot assign requested address", ""},
	} {
		if tt.err == nil || tt.err.Error() != tt.want {
			t.Errorf("the error is %v, want %s", tt.err, tt.want)
		}
		if got := report.Hint(tt.err); got != tt.hint {
			t.Errorf("the hint for %v is %q, want %q", tt.err, got, tt.hint)
		}
	}
}
