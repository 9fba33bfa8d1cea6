package keysource

import (
	"errors"
	"fmt"
	"os"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Pipe returns a descriptor to read from what a function reads.
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

// pipeOf returns a descriptor that a key can be read from, once. Meanwhile it
// is in the kernel's memory, and in no file.
func pipeOf(key *transfer.Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	// A pipe takes it all: a key is less than a page.
	_, err = w.Write(key.Bytes())
	if err = errors.Join(err, w.Close()); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("hand over the key: %w", err)
	}
	return r, nil
}
