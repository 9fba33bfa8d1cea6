package main

import (
	"fmt"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// receiveKey returns the key that the job's descriptor has, nil for none.
func (j *job) receiveKey() (*transfer.Secret, error) {
	if j.key == nil {
		return nil, nil
	}
	if err := confine.ForbidDumps(); err != nil {
		return nil, err
	}
	key, err := keysource.Read(j.key, keysource.MaxKeyBytes)
	if err != nil {
		return nil, fmt.Errorf("receive the key: %w", err)
	}
	return key, j.key.Close()
}
