package keysource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// keyrings lists the keyrings to search (keyrings(7)): first the session's, which usually
// includes the user's, then the user's.
var keyrings = []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING}

// readKeyring returns the payload of a key of type user. It cannot read a key of type
// logon, because only the kernel can.
func readKeyring(description string, limit int) (*transfer.Secret, error) {
	id, err := findKey(description)
	if err != nil {
		return nil, err
	}
	key, err := transfer.NewSecret(limit)
	if err != nil {
		return nil, err
	}
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, key.Bytes(), 0)
	switch {
	case err == nil && n > limit:
		err = fmt.Errorf("more than %d bytes: %w", limit, unix.EINVAL)
	case err == nil && n == 0:
		err = fmt.Errorf("empty: %w", unix.EINVAL)
	}
	if err != nil {
		key.Close()
		return nil, err
	}
	key.Truncate(n)
	return key, nil
}

// findKey returns the id of a key. It only searches, because request_key(2) would make
// the kernel start a program for a missing key.
func findKey(description string) (id int, err error) {
	for _, ring := range keyrings {
		id, err = unix.KeyctlSearch(ring, "user", description, 0)
		if !errors.Is(err, unix.ENOKEY) {
			break
		}
	}
	return id, err
}
