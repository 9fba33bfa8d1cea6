package loop

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// findIDs returns the ids of the devices of a file.
func findIDs(t *testing.T, ctl *ublk.Control, path string) []uint32 {
	t.Helper()
	found, err := Find(ctl, openPath(t, path))
	if err != nil {
		t.Fatal(err)
	}
	var ids []uint32
	for _, s := range found {
		ids = append(ids, s.ID)
	}
	return ids
}

// The devices of files on a disk are not devices of the disk. A removal of the disk's
// devices must not remove them.
func TestKernelFindTellsDiskFromItsFiles(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disk := nullDisk(t, 320, nil)
	run(t, "mkfs.ext4", "-q", "-F", disk)
	path := sparseFile(t, mount(t, "ext4", disk))
	dev := attach(t, ctl, path, Config{})
	if ids := findIDs(t, ctl, disk); len(ids) > 0 {
		t.Errorf("of the disk: %v, want none", ids)
	}
	if ids := findIDs(t, ctl, path); !slices.Equal(ids, []uint32{dev.ID()}) {
		t.Errorf("of the file: %v, want %d", ids, dev.ID())
	}
	saved, err := readState(dev.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := saved.checkBacking(openPath(t, disk), deviceSize); err == nil {
		t.Error("the disk would be taken for the file")
	}
	reader := attach(t, ctl, disk, Config{ReadOnly: true})
	if ids := findIDs(t, ctl, disk); !slices.Equal(ids, []uint32{reader.ID()}) {
		t.Errorf("of the disk, once there is one: %v, want %d", ids, reader.ID())
	}
	node := filepath.Join(t.TempDir(), "node")
	run(t, "cp", "-a", disk, node)
	if ids := findIDs(t, ctl, node); !slices.Equal(ids, []uint32{reader.ID()}) {
		t.Errorf("of another node of the disk: %v, want %d", ids, reader.ID())
	}
	if err := os.Remove(node); err != nil {
		t.Error(err)
	}
}

// A device that waits for a server is not the device of a file that has got the inode
// number of its file.
func TestKernelFindAfterTheFile(t *testing.T) {
	ctl := ublktest.Kernel(t)
	path := sparseFile(t, mountTmpfs(t))
	dev := attach(t, ctl, path, Config{})
	saved, err := readState(dev.ID())
	if err != nil {
		t.Fatal(err)
	}
	now := identity.File{Device: saved.Status.FileDevice, Inode: saved.Status.FileInode, Birth: saved.FileBirth, Disk: saved.FileDisk}
	later := now
	later.Birth++
	served, waits := dev.Status(), dev.Status()
	waits.PID = 0
	for name, tt := range map[string]struct {
		s    Status
		file identity.File
		is   bool
	}{
		"its file":                            {waits, now, true},
		"a later file":                        {waits, later, false},
		"its file, which the server has open": {served, now, true},
		"its file, of which the server says too little": {served, later, true},
	} {
		if is, err := tt.s.isOf(tt.file); err != nil || is != tt.is {
			t.Errorf("%s: %v, error %v", name, is, err)
		}
	}
}

// A device is not taken for the one that had its id before.
func TestKernelAnotherDeviceWithTheID(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := attach(t, ctl, sparseFile(t, mountTmpfs(t)), Config{})
	size, is := dev.Status().Size, dev.Status().DiskSequence
	was := is - 1
	if err := Detach(ctl, dev.ID(), DetachOptions{Force: true, DiskSequence: &was}); err != nil {
		t.Errorf("remove the device that was: %v", err)
	}
	if err := Resize(ctl, dev.ID(), ResizeOptions{Size: 4096, DiskSequence: &was}); !errors.Is(err, errReplaced) {
		t.Errorf("resize the device that was: error %v, want that it is gone", err)
	}
	if now := dev.Status(); now.DiskSequence != is || now.Size != size || dev.isDone() {
		t.Errorf("the device is %+v", now)
	}
	if err := Resize(ctl, dev.ID(), ResizeOptions{Size: 4096, DiskSequence: &is}); err != nil && !errors.Is(err, ublk.ErrNotSupported) {
		t.Errorf("resize the device: %v", err)
	}
}

// A look at one device tells what the list has, and knows no devices of other programs.
func TestKernelLook(t *testing.T) {
	ctl := ublktest.Kernel(t)
	devices := []*Device{attach(t, ctl, sparseFile(t, mountTmpfs(t)), Config{}), attach(t, ctl, sparseFile(t, mountTmpfs(t)), Config{ReadOnly: true})}
	list, err := List(ctl)
	if err != nil || len(list) != len(devices) {
		t.Fatalf("the list is %+v, error %v", list, err)
	}
	for i, dev := range devices {
		if s, err := Look(ctl, dev.ID()); err != nil || !reflect.DeepEqual(s, list[i]) {
			t.Errorf("%s is %+v, error %v, want %+v", dev.Path(), s, err, list[i])
		}
	}
	if _, err := Look(ctl, 1000); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device that does not exist: %v", err)
	}
	foreign, err := ctl.Add(ublk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Look(ctl, foreign.Info().ID); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device of another program: %v", err)
	}
	if err := foreign.Close(); err != nil {
		t.Error(err)
	}
}

// A disk's sequence number tells devices with the same tag apart. A device that has started since it
// was found has the number that it had not then.
func TestKernelIsAnother(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dev := attach(t, ctl, sparseFile(t, t.TempDir()), Config{})
	info, err := ctl.Info(dev.ID())
	if err != nil {
		t.Fatal(err)
	}
	tag, sequence := info.Tag, dev.Status().DiskSequence
	for _, tt := range []struct {
		tag, sequence uint64
		want          bool
	}{
		{tag, sequence, false},
		{0, sequence, false},
		{tag, 0, false},
		{tag, sequence + 1, true},
		{0, sequence + 1, true},
		{0, 0, true},
		{tag + 1, sequence, true},
		{tag + 1, 0, true},
	} {
		if got := isAnother(&info, tt.tag, &tt.sequence); got != tt.want {
			t.Errorf("tag %#x and number %d for %#x and %d: another one %v", tt.tag, tt.sequence, tag, sequence, got)
		}
	}
	if isAnother(&info, 0, nil) || isAnother(&info, tag, nil) || !isAnother(&info, tag+1, nil) {
		t.Error("without a sequence number, the tag does not decide")
	}
}
