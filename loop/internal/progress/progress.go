// Package progress tells a slow disk from one that hangs.
package progress

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStalled is returned by Await for a disk that hangs. It wraps ETIMEDOUT.
var ErrStalled = fmt.Errorf("the disk completes no request: %w", unix.ETIMEDOUT)

// Await waits for the result of an operation on a disk, such as ublkb0, as long as the disk
// completes requests. It returns ErrStalled if the disk completes none within patience. The
// operation then goes on. While the kernel does not count requests (queue/iostats is 0), the disk
// seems to complete none.
func Await(disk string, patience time.Duration, ended <-chan error) error {
	return await(patience, ended, func() uint64 {
		n, _ := Completed(disk)
		return n
	})
}

// Completed returns the number of requests that a disk, such as ublkb0, has completed. It is 0 for a disk that is gone,
// whose driver may wait for the last requests. It reports false while the kernel does not count requests.
func Completed(disk string) (n uint64, counts bool) {
	return completedIn(filepath.Join("/sys/block", disk))
}

func completedIn(dir string) (n uint64, counts bool) {
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, true
	}
	switched, err := os.ReadFile(filepath.Join(dir, "queue/iostats"))
	return completed(string(text)), err != nil || strings.TrimSpace(string(switched)) != "0"
}

func await(patience time.Duration, ended <-chan error, completed func() uint64) error {
	for before := completed(); ; {
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
		}
		now := completed()
		if now == before {
			return ErrStalled
		}
		before = now
	}
}

// The fields of stat that count completed requests: reads, writes, discards and flushes. Others
// change while a request hangs (part_stat_show in block/genhd.c).
var completions = []int{0, 4, 11, 15}

// completed returns the number of completed requests in the text of the attribute stat.
func completed(stat string) (sum uint64) {
	fields := strings.Fields(stat)
	for _, i := range completions {
		if i < len(fields) {
			n, _ := strconv.ParseUint(fields[i], 10, 64) // the kernel writes numbers
			sum += n
		}
	}
	return sum
}
