package ublktest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// HasOtherUsers reports whether this process may act as another user and give files to it. Root may. Root of
// a user namespace that has no other user may not.
func HasOtherUsers() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return unix.Geteuid() == 0 && err == nil && numberOfUsers(string(text)) > 1
}

// numberOfUsers returns how many users a map of a user namespace has (user_namespaces(7)).
func numberOfUsers(text string) (n uint64) {
	for line := range strings.Lines(text) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err == nil {
			n += count
		}
	}
	return n
}

// NeedsOtherUsers skips a test that acts as another user or gives files to it, if this process may not.
func NeedsOtherUsers(t testing.TB) {
	t.Helper()
	if !HasOtherUsers() {
		MachineLacks(t, "root")
	}
}
