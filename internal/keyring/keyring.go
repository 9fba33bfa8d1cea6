// Package keyring reads keys from the kernel's keyrings (keyrings(7)).
package keyring

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// rings lists the keyrings to search: first the session's, which usually includes the
// user's, then the user's.
var rings = []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING}

// Read copies the payload of the key of type user with a description, and returns its
// length. It cannot read a key of type logon, because only the kernel can. It returns
// ENOKEY if there is no such key, and an error that wraps EINVAL if the key is empty or
// longer than the buffer.
func Read(description string, buf []byte) (int, error) {
	id, err := find(description)
	if err != nil {
		return 0, err
	}
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0)
	switch {
	case err == nil && n > len(buf):
		err = fmt.Errorf("more than %d bytes: %w", len(buf), unix.EINVAL)
	case err == nil && n == 0:
		err = fmt.Errorf("empty: %w", unix.EINVAL)
	}
	return n, err
}

// find returns the id of a key. It only searches, because request_key(2) would make the
// kernel start a program for a missing key.
func find(description string) (id int, err error) {
	for _, ring := range rings {
		id, err = unix.KeyctlSearch(ring, "user", description, 0)
		if !errors.Is(err, unix.ENOKEY) {
			break
		}
	}
	return id, err
}
