package keysource

import (
	"github.com/ublk-loop/ublk-loop/internal/keyring"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// readKeyring returns the payload of a key of type user in the kernel's keyrings.
func readKeyring(description string, limit int) (*transfer.Secret, error) {
	key, err := transfer.NewSecret(limit)
	if err != nil {
		return nil, err
	}
	n, err := keyring.Read(description, key.Bytes())
	if err != nil {
		key.Close()
		return nil, err
	}
	key.Truncate(n)
	return key, nil
}
