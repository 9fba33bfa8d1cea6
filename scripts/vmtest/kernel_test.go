package vmtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A kernel in the cache is there at once, also while another process builds the same kernel from other
// inputs, which takes minutes.
func TestCachedKernelNeedsNoLock(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("UBLK_LOOP_CACHE", cache)
	kernel := filepath.Join(cache, "kernels", "7.3")
	if err := errors.Join(os.MkdirAll(filepath.Join(kernel, "lib", "modules", "7.3.0"), 0o700),
		os.WriteFile(filepath.Join(kernel, "vmlinuz"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(cache, "kernels", "7.3.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Second, errors.New("it waits for the lock"))
	defer cancel()
	if err := exec.CommandContext(ctx, "../vm-kernel.sh", "7.3").Run(); err != nil {
		t.Errorf("vm-kernel.sh 7.3: %v, %v", err, context.Cause(ctx))
	}
}
