package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// writeOverlay writes the file with the fault to a directory, with an overlay file that
// makes the compiler read it in place of the original. It returns the path of the overlay
// file.
func writeOverlay(m *mutant, dir string) (string, error) {
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	changed, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err == nil {
		err = os.WriteFile(changed, m.source(), 0o644)
	}
	if err == nil {
		err = os.WriteFile(overlay, replace, 0o644)
	}
	return overlay, err
}

// build builds the tests of a package.
func build(ctx context.Context, p *pkg, binary string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"test", "-c", "-ldflags=-s -w", "-o", binary}, flags...), "./"+p.dir)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests of %s: %w:\n%s", p.dir, err, out)
	}
	return nil
}

// finish runs a command that runs a test, and returns the output. At the limit the test
// binary ends itself with a report; finish kills it if it has not ended after the grace
// period.
func finish(ctx context.Context, command func(ctx context.Context) (*exec.Cmd, error), limit, grace time.Duration) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, limit+grace)
	defer stop()
	cmd, err := command(ctx)
	if err != nil {
		return nil, err
	}
	out := &limitedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), bytes.Contains(out.Bytes(), []byte("panic: test timed out after")):
		err = errTimeOut
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return out.Bytes(), err
}

// limitedBuffer keeps only the beginning of the output, because a test with a fault may
// print without end.
type limitedBuffer struct{ bytes.Buffer }

const maxOutput = 16 << 20

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
