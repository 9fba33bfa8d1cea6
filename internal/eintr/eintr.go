// Package eintr repeats system calls that a signal interrupts.
package eintr

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Repeat calls a function again while it returns EINTR.
func Repeat(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
