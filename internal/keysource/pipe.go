package keysource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// A Reader reads a key, and returns it with warnings. It returns the cause when the context is done.
type Reader func(ctx context.Context) (*transfer.Secret, []string, error)

// Load calls read, for a process that keeps the key for a while.
func Load(ctx context.Context, read Reader) (*transfer.Secret, []string, error) {
	if err := confine.ForbidDumps(); err != nil {
		return nil, nil, err
	}
	return read(ctx)
}

// Pipe calls read, and returns a descriptor from which the key can be read once.
func Pipe(ctx context.Context, read Reader) (*os.File, []string, error) {
	key, warnings, err := Load(ctx, read)
	if err != nil {
		return nil, nil, err
	}
	defer key.Close()
	pipe, err := PipeOf(key)
	return pipe, warnings, err
}

// pipePatience bounds the write of a key. A pipe takes all keys at once, unless its user has too
// many pipes (pipe-user-pages-soft of proc(5)).
const pipePatience = time.Second

// PipeOf returns a descriptor from which a key can be read once. Meanwhile the key is
// only in the kernel's memory, not in a file.
func PipeOf(key *transfer.Secret) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err = w.SetWriteDeadline(time.Now().Add(pipePatience)); err == nil {
		_, err = w.Write(key.Bytes())
	}
	if err = errors.Join(err, w.Close()); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("write the key to the pipe: %w", err)
	}
	return r, nil
}
