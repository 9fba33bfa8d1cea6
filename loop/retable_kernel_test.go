package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
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

// A device in use cannot get blocks of another size. So a disk with larger ones is refused as a new store, and
// as another base.
func TestKernelForkAndReloadWithLargerBlocks(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	store := filepath.Join(dir, "store")
	newStore(t, store, 8192, 8<<20)
	const line = "0 8192 snapshot %s %s P 16"
	dev := attachTable(t, ctl, fmt.Sprintf(line, sparseFile(t, dir), store), Config{})
	base, disk := disk4K(t), disk4K(t)
	layout, err := snapshot.NewLayout(8192)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(snapshot.FormatLabelled(f, layout, &snapshot.Label{UUID: snapshot.NewUUID()}), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	open := func(path string) *os.File {
		t.Helper()
		file, err := OpenTableDevice(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	if _, err := dev.Fork(open(disk)); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "logical blocks of 4096 bytes") {
		t.Errorf("fork: error %v", err)
	}
	if err := dev.Reload(fmt.Sprintf(line, base, store), []*os.File{open(base), open(store)}); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "logical blocks of 4096 bytes") {
		t.Errorf("reload: error %v", err)
	}
	mem := alignedMemory(t, 512)
	if _, err := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT).WriteAt(mem, 512); err != nil {
		t.Error(err)
	}
}
