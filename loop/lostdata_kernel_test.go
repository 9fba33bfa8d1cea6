package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A thinDisk is a disk in memory. While it is full, it has no room for lostData.
type thinDisk struct {
	mu      sync.Mutex
	content []byte
	full    bool
}

var lostData = bytes.Repeat([]byte{0xee}, 64<<10)

// newThinDisk returns a disk, which ends with the test, and its path.
func newThinDisk(t *testing.T, ctl *ublk.Control, size int) (d *thinDisk, path string) {
	t.Helper()
	d = &thinDisk{content: make([]byte, size)}
	dev, err := ctl.Add(ublk.Options{Queues: 1, NoPartScan: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	if err = dev.SetParams(ublk.Params{Size: uint64(size), VolatileCache: true}); err == nil {
		err = dev.Start(ublk.HandlerFunc(d.handle))
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, dev.BlockPath()
}

func (d *thinDisk) handle(req *ublk.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch req.Op {
	case ublk.OpRead:
		copy(req.Data(), d.content[req.Offset():])
	case ublk.OpWrite:
		if d.full && bytes.Contains(req.Data(), lostData[:4096]) {
			req.Complete(unix.ENOSPC)
			return
		}
		copy(d.content[req.Offset():], req.Data())
	case ublk.OpFlush:
	default:
		req.Complete(unix.EOPNOTSUPP)
		return
	}
	req.Complete(nil)
}

// lose makes the file system drop lostData, which is in the page cache of a file. The next flush of each open file reports
// that.
func (d *thinDisk) lose(t *testing.T, path string) {
	t.Helper()
	d.fill(true)
	defer d.fill(false)
	if err := openFile(t, path, os.O_RDONLY).Sync(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("error %v, want ENOSPC", err)
	}
}

func (d *thinDisk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// If the disk below the file system of a store has no room for the data of a first write, no flush succeeds
// afterwards, because the record would lead to other data. That is so also if something else is the first that
// learns of the loss, with the error of a full file system. For a later write to the chunk one flush fails.
func TestKernelLostDataOfFirstWrite(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	const chunk, changed = 64 << 10, 9 << 20 // more than a merge copies while the device keeps its requests
	write := func(f *os.File, data []byte, at int64, flags int) error { return writeDirect(t, f, data, at, flags) }
	merge := func(dev *Device, _ *os.File) error {
		_, err := dev.Merge(context.Background())
		return err
	}
	for row, tt := range []struct {
		name  string
		at    int64                               // of the write whose data is lost
		first func(dev *Device, f *os.File) error // the operation that learns of the loss
	}{
		{"first write with FUA", 12 << 20, func(_ *Device, f *os.File) error { return write(f, make([]byte, chunk), 14<<20, unix.RWF_DSYNC) }},
		{"second write with FUA", 12 << 20, func(_ *Device, f *os.File) error { return write(f, make([]byte, 4096), 4096, unix.RWF_DSYNC) }},
		{"merge", 12 << 20, merge},
		{"merge after a second write", 0, merge},
	} {
		for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
			t.Run(fmt.Sprint(tt.name, ", zero copy ", zeroCopy), func(t *testing.T) {
				disk, dir := mountThinDisk(t, ctl)
				base, store := sparseFile(t, t.TempDir()), filepath.Join(dir, "store")
				if err := errors.Join(os.Truncate(base, 16<<20), newStore(t, store, chunk, 48<<20).Close()); err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprintf("0 %d snapshot %s %s P %d", 16<<20/512, base, store, chunk/512)
				dev := attachTable(t, ctl, text, Config{ZeroCopy: zeroCopy, DirectIO: SwitchOff})
				f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
				for at := int64(0); at < changed; at += chunk {
					if err := write(f, make([]byte, chunk), at, 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(f.Sync(), write(f, lostData, tt.at, 0)); err != nil {
					t.Fatal(err)
				}
				disk.lose(t, store)
				if err := tt.first(dev, f); err == nil {
					t.Error("no error")
				}
				if err := f.Sync(); err == nil {
					t.Error("a flush succeeds although data is lost")
				}
			})
		}
	}
}

// mountThinDisk mounts a file system on a thin disk.
func mountThinDisk(t *testing.T, ctl *ublk.Control) (d *thinDisk, dir string) {
	t.Helper()
	d, node := newThinDisk(t, ctl, 96<<20)
	run(t, "mkfs.ext4", "-q", "-F", node)
	dir = t.TempDir()
	run(t, "mount", node, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	return d, dir
}

// writeDirect writes to a file with O_DIRECT.
func writeDirect(t *testing.T, f *os.File, data []byte, at int64, flags int) error {
	t.Helper()
	mem := alignedMemory(t, len(data))
	copy(mem, data)
	_, err := unix.Pwritev2(int(f.Fd()), [][]byte{mem}, at, flags)
	return err
}

// If the disk below the file system of a file has no room for data of the page cache, a write with FUA can be the first that
// learns of that. Then the next flush fails too, although the kernel reports the loss only once.
func TestKernelLostDataOfFile(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for row, table := range []bool{false, true} {
		for _, zeroCopy := range ublktest.Sample(t, row, SwitchAuto, SwitchOff) {
			t.Run(fmt.Sprint("table ", table, ", zero copy ", zeroCopy), func(t *testing.T) {
				disk, dir := mountThinDisk(t, ctl)
				path := filepath.Join(dir, "image")
				if err := errors.Join(os.WriteFile(path, make([]byte, 4<<20), 0o600), openFile(t, path, os.O_RDWR).Sync()); err != nil {
					t.Fatal(err)
				}
				cfg := Config{ZeroCopy: zeroCopy, DirectIO: SwitchOff, Queues: 2}
				var dev *Device
				if table {
					dev = attachTable(t, ctl, fmt.Sprintf("0 %d linear %s 0", 4<<20/512, path), cfg)
				} else {
					dev = attach(t, ctl, path, cfg)
				}
				f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
				if err := errors.Join(f.Sync(), writeDirect(t, f, lostData, 0, 0)); err != nil {
					t.Fatal(err)
				}
				disk.lose(t, path)
				if err := writeDirect(t, f, make([]byte, 4096), 2<<20, unix.RWF_DSYNC); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("a write with FUA has the error %v, want ENOSPC", err)
				}
				if err := f.Sync(); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("the flush after lost data has the error %v, want ENOSPC", err)
				}
				if err := f.Sync(); err != nil {
					t.Errorf("a later flush: %v", err)
				}
			})
		}
	}
}
