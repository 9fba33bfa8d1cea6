package keysource

import (
	"errors"
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Pipe calls read, and returns a descriptor from which the key can be read once.
func Pipe(read func() (*transfer.Secret, []string, error)) (*os.File, []string, error) {
	if err := confine.ForbidDumps(); err != nil {
		return nil, nil, err
	}
	key, warnings, err := read()
	if err != nil {
		return nil, nil, err
	}
	defer key.Close()
	pipe, err := pipeOf(key)
	return pipe, warnings, err
}

// pipeOf returns a descriptor from which a key can be read once. Meanwhile the key is
// only in the kernel's memory, not in a file.
func pipeOf(key *transfer.Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// The write does not block, because a key is smaller than a pipe's buffer.
	_, err = w.Write(key.Bytes())
	if err = errors.Join(err, w.Close()); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("write the key to the pipe: %w", err)
	}
	return r, nil
}
