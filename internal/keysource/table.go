package keysource

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// TableKeys returns the keys of a stack, one after another in the order of the text: those in
// the text, and those that it names in the kernel's keyrings. It returns nil if the stack has
// no keys. An error has the line.
func TableKeys(s *table.Stack) (*transfer.Secret, error) {
	total := s.KeyBytes()
	if total == 0 {
		return nil, nil
	}
	keys, err := transfer.NewSecret(total)
	if err != nil {
		return nil, err
	}
	rest := keys.Bytes()
	for place, c := range table.Targets[*table.Crypt](s) {
		if err := lineKey(c, rest[:c.Key.Bytes]); err != nil {
			keys.Close()
			return nil, place.Wrap(fmt.Errorf("key: %w", err))
		}
		rest = rest[c.Key.Bytes:]
	}
	return keys, nil
}

// lineKey fills in the key of a line.
func lineKey(c *table.Crypt, into []byte) error {
	if c.Key.Secret != nil {
		transfer.CopyKey(into, c.Key.Secret.Bytes())
		return nil
	}
	key, err := readKeyring(c.Key.Description, transfer.MaxKeyBytes)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Key.Description, err)
	}
	defer key.Close()
	if n := len(key.Bytes()); n != len(into) {
		return fmt.Errorf("%s: %d bytes, not %d: %w", c.Key.Description, n, len(into), unix.EINVAL)
	}
	transfer.CopyKey(into, key.Bytes())
	return nil
}
