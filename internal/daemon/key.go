package daemon

import (
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// receiveKey returns the key that a descriptor has, nil for no descriptor.
func receiveKey(f *os.File) (*transfer.Secret, error) {
	if f == nil {
		return nil, nil
	}
	if err := confine.ForbidDumps(); err != nil {
		return nil, err
	}
	key, err := keysource.Read(f, transfer.MaxKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("receive the key: %w", err)
	}
	return key, f.Close()
}
