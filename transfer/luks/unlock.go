package luks

import (
	"errors"
	"fmt"
	"io"
)

// Unlock writes the volume key into key, which must be as long as the volume's
// KeySize says, and is zero on error. It tries the keyslots by priority and
// then by number; those of priority 0, "ignore", it leaves alone (LUKS2 3.2).
//
// The error wraps ErrWrongPassphrase if any keyslot was tried and none opened.
// It wraps what kept a keyslot from being tried, too: ErrLimit,
// ErrUnsupported, or what r returned.
func (h *Header) Unlock(r io.ReaderAt, passphrase []byte, limits Limits, key []byte) error {
	clear(key)
	switch {
	case h.refused != nil:
		return h.refused
	case len(key) != h.volume.KeySize:
		return fmt.Errorf("unlock: the key has %d bytes, there is room for %d", h.volume.KeySize, len(key))
	case len(h.slots) == 0:
		return ErrNoKeyslot
	}
	limits = limits.filled()
	var wrong, skipped error
	for _, s := range h.slots {
		err := s.unlock(r, passphrase, &limits, key)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrWrongPassphrase):
			wrong = err
		case skipped == nil:
			skipped = fmt.Errorf("keyslot %d: %w", s.id, err)
		}
	}
	clear(key)
	switch {
	case skipped == nil:
		return wrong
	case wrong == nil:
		return skipped
	}
	return fmt.Errorf("%w (not tried: %w)", wrong, skipped)
}
