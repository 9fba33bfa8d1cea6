package progress

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A request that hangs changes its disk's number of requests in flight and the times, and nothing
// that counts as progress.
func TestCompleted(t *testing.T) {
	const idle = "     100        3     4096       12        7        0       56        1        0       40       30        5        0        8        1        2        3\n"
	if n := completed(idle); n != 100+7+5+2 {
		t.Errorf("%d completed requests, want 114", n)
	}
	const hangs = "     100        3     4096       12        7        9       56        1        1    90040       31        5        0        8        1        2        3\n"
	if completed(hangs) != completed(idle) {
		t.Error("a request that hangs counts as completed")
	}
	for text, want := range map[string]uint64{
		"1 0 0 0 10 0 0 0 0 0 0":                  11, // before discards and flushes were counted
		"1 0 0 0 10 0 0 0 0 0 0 100 0 0 0 1000 0": 1111,
		"": 0,
		"1 0 0 0 10 0 0 0 0 0 0 100 0 0 0 1000 0 7": 1111,
	} {
		if n := completed(text); n != want {
			t.Errorf("%q: %d completed requests, want %d", text, n, want)
		}
	}
}

// The kernel counts the requests of a disk unless queue/iostats is 0. A disk that is gone completes none.
func TestCompletedIn(t *testing.T) {
	gone, dir := t.TempDir(), t.TempDir()
	stat, switched := filepath.Join(dir, "stat"), filepath.Join(dir, "queue/iostats")
	if err := errors.Join(os.Mkdir(filepath.Dir(switched), 0o700), os.WriteFile(stat, []byte("7 0 0\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, iostats string
		n            uint64
		counts       bool
	}{{gone, "1\n", 0, true}, {dir, "1\n", 7, true}, {dir, "0\n", 7, false}} {
		if err := os.WriteFile(switched, []byte(c.iostats), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, counts := completedIn(c.dir); n != c.n || counts != c.counts {
			t.Errorf("%+v: %d requests, which the kernel counts: %v", c, n, counts)
		}
	}
}

// The wait has no limit as long as requests are completed.
func TestAwait(t *testing.T) {
	const looks = 5
	ended := make(chan error, 1)
	n := uint64(0)
	err := await(time.Millisecond, ended, func() uint64 {
		if n++; n == looks {
			ended <- unix.EIO
		}
		return n
	})
	if !errors.Is(err, unix.EIO) || n < looks {
		t.Errorf("error %v after %d looks, want EIO after %d", err, n, looks)
	}
	err = await(time.Millisecond, ended, func() uint64 { // completes looks requests, and no more
		n = min(n+1, 2*looks)
		return n
	})
	if !errors.Is(err, unix.ETIMEDOUT) || n != 2*looks {
		t.Errorf("error %v after %d completed requests, want ETIMEDOUT after %d", err, n, 2*looks)
	}
}
