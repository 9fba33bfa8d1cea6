package loop

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// The devices of files on a disk are not devices of the disk. A removal of the disk's
// devices must not remove them.
func TestKernelFindTellsDiskFromItsFiles(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disk := nullDisk(t, 320, nil)
	run(t, "mkfs.ext4", "-q", "-F", disk)
	path := sparseFile(t, mount(t, "ext4", disk))
	dev := attach(t, ctl, path, Config{})
	if ids, err := Find(ctl, openPath(t, disk)); err != nil || len(ids) > 0 {
		t.Errorf("of the disk: %v, error %v; want none", ids, err)
	}
	if ids, err := Find(ctl, openPath(t, path)); err != nil || !slices.Equal(ids, []uint32{dev.ID()}) {
		t.Errorf("of the file: %v, error %v; want %d", ids, err, dev.ID())
	}
	saved, err := readState(dev.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := saved.checkBacking(openPath(t, disk), deviceSize); err == nil {
		t.Error("the disk would be taken for the file")
	}
	reader := attach(t, ctl, disk, Config{ReadOnly: true})
	if ids, err := Find(ctl, openPath(t, disk)); err != nil || !slices.Equal(ids, []uint32{reader.ID()}) {
		t.Errorf("of the disk, once there is one: %v, error %v; want %d", ids, err, reader.ID())
	}
	node := filepath.Join(t.TempDir(), "node")
	run(t, "cp", "-a", disk, node)
	if ids, err := Find(ctl, openPath(t, node)); err != nil || !slices.Equal(ids, []uint32{reader.ID()}) {
		t.Errorf("of another node of the disk: %v, error %v; want %d", ids, err, reader.ID())
	}
	if err := os.Remove(node); err != nil {
		t.Error(err)
	}
}
