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
	stat := filepath.Join("/sys/block", disk, "stat")
	return await(patience, ended, func() uint64 {
		text, err := os.ReadFile(stat)
		if err != nil {
			return 0 // the disk is gone, and the driver waits for its last requests
		}
		return completed(string(text))
	})
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
