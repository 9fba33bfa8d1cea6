package keysource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// keyrings are where a key is looked for (keyrings(7)): what the session has,
// which most often includes the user's, and then the user's.
var keyrings = []int{unix.KEY_SPEC_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING}

// readKeyring returns the payload of a key of type user: of logon keys, which
// only the kernel can read, nobody gets it.
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

// findKey returns the id of a key. It only looks: request_key(2) would have the
// kernel start a program for what is not there.
func findKey(description string) (id int, err error) {
	for _, ring := range keyrings {
		id, err = unix.KeyctlSearch(ring, "user", description, 0)
		if !errors.Is(err, unix.ENOKEY) {
			break
		}
	}
	return id, err
}
