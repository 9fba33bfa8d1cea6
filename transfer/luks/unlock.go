package luks

import (
	"errors"
	"fmt"
	"io"
)

// Unlock writes the volume key into key. The length of key must be the volume's
// KeySize. On error, key is zero. Unlock tries the keyslots by priority and
// then by number. It skips keyslots of priority 0, "ignore" (LUKS2 3.2).
//
// The error wraps ErrWrongPassphrase if keyslots were tried and none opened. It
// also wraps the first error that prevented a keyslot from being tried:
// ErrLimit, ErrUnsupported, or the error of r.
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
