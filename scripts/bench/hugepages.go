package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// withoutHugePages calls f. Programs that f starts get no huge pages except
// those that they request, because execve(2) keeps the setting
// (PR_SET_THP_DISABLE in prctl(2)).
func withoutHugePages(f func() error) error {
	if err := disableHugePages(1); err != nil {
		return err
	}
	return errors.Join(f(), disableHugePages(0))
}

func disableHugePages(on uintptr) error {
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, on, 0, 0, 0); err != nil {
		return fmt.Errorf("disable huge pages (%d): %w", on, err)
	}
	return nil
}
