package loop

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A device that has been removed does not fork and has no other tables, also when the next device has its id.
// That one goes on as it was.
func TestKernelForkAfterRemoval(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	base := sparseFile(t, dir)
	text := func(name string) string {
		newStore(t, filepath.Join(dir, name), 8192, 8<<20)
		return fmt.Sprintf("0 8192 snapshot %s %s P 16", base, filepath.Join(dir, name))
	}
	gone := attachTable(t, ctl, text("gone"), Config{})
	id := gone.ID()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	file := newStore(t, filepath.Join(dir, "new"), 8192, 8<<20)
	refused := func(when string) {
		t.Helper()
		if _, err := gone.Fork(file); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: fork: error %v, want ENODEV", when, err)
		}
		if err := gone.Reload(gone.startStatus().Table, nil); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: reload: error %v, want ENODEV", when, err)
		}
	}
	refused("after the removal")
	next := attachTable(t, ctl, text("next"), Config{ID: &id})
	before, err := readState(id)
	if err != nil {
		t.Fatal(err)
	}
	refused("with the next device")
	after, err := readState(id)
	if err != nil || after.Config.Table != before.Config.Table {
		t.Errorf("the state of the next device has the table %q, error %v; it was %q", after.Config.Table, err, before.Config.Table)
	}
	if _, err := next.Fork(file); err != nil {
		t.Error(err)
	}
}
