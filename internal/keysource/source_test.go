package keysource

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// The hint for a key that is in no keyring says how to add it.
func TestMissingKeyringKey(t *testing.T) {
	const name = "ublk-loop:no such key"
	_, _, err := (&Source{Kind: Keyring, Description: name}).readAll(nil, 64)
	var h *hint.Error
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		t.Skipf("no keyrings here: %v", err)
	case !errors.Is(err, unix.ENOKEY) || !errors.As(err, &h):
		t.Errorf("error %v", err)
	case h.Hint != "keyctl padd user '"+name+"' @u <FILE adds it":
		t.Errorf("hint %q", h.Hint)
	}
}
