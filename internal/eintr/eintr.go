// Package eintr repeats system calls that a signal has interrupted.
package eintr

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Repeat calls a function until a signal does not interrupt it.
func Repeat(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
