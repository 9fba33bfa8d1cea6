package loop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A fork changes over only when no write to the old store is in flight. If a write does not end in
// time, the device goes on as before. If it ends, it belongs to the frozen store, which does not
// change from then on. What was written and flushed is on the medium: in the frozen store, with its
// mark, and in the new one.
func TestKernelForkWaitsForWrites(t *testing.T) {
	ctl := ublktest.Kernel(t)
	dir := mountTmpfs(t)
	base := sparseFile(t, dir)
	store := newCachingDisk(t, ctl, &diskHistory{}, make([]byte, 8<<20))
	dev := attachTable(t, ctl, fmt.Sprintf("0 8192 snapshot %s %s P 16", base, store.path), Config{})
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	newStore(t, filepath.Join(dir, "empty"), 8192, 8<<20)
	top := newCachingDisk(t, ctl, &diskHistory{}, contentOf(t, filepath.Join(dir, "empty")))
	empty := top.now()
	fork := func() error {
		file, err := OpenTableDevice(top.path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = dev.Fork(file)
		return err
	}

	open, written := store.heldWrite(t, f, 0)
	patience := forkPatience
	forkPatience = 200 * time.Millisecond
	err := fork()
	forkPatience = patience
	if !errors.Is(err, unix.ETIMEDOUT) {
		t.Fatalf("fork while a write is in flight: error %v", err)
	}
	open()
	if err := errors.Join(<-written, f.Sync()); err != nil { // the next fork has no records to save
		t.Fatal(err)
	}

	open, written = store.heldWrite(t, f, 1)
	forked := startFork(t, dev, fork)
	open()
	if err := errors.Join(<-forked, <-written); err != nil {
		t.Fatal(err)
	}
	frozen := store.now()
	onMedium(t, "frozen store", store.durable(make([]byte, 8<<20)), 2, true)
	if _, err := f.WriteAt(forkBlock(t, 2), 2*8192); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	onMedium(t, "new store", top.durable(empty), 1, false)
	if !bytes.Equal(store.now(), frozen) {
		t.Error("the frozen store has changed")
	}
	for i := range 3 {
		if got := readDisk(t, f)[i*8192:][:8192]; !bytes.Equal(got, forkBlock(t, i)) {
			t.Errorf("chunk %d has other data", i)
		}
	}
}

// A fork of a device of a file gives up if the file cannot be written to the medium in time. The device goes
// on as before, and another fork succeeds when the disk below writes again.
func TestKernelForkPlainWaitsForDisk(t *testing.T) {
	ctl := ublktest.Kernel(t)
	disk := newCachingDisk(t, ctl, &diskHistory{}, make([]byte, 64<<20))
	run(t, "mkfs.ext4", "-q", "-F", disk.path)
	dir := t.TempDir()
	run(t, "mount", disk.path, dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	base, store := sparseFile(t, dir), newStore(t, filepath.Join(mountTmpfs(t), "store"), 8192, 8<<20)
	dev := attachTable(t, ctl, fmt.Sprintf("0 8192 linear %s 0", base), Config{DirectIO: SwitchOff})
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	if _, err := f.WriteAt(forkBlock(t, 0), 0); err != nil {
		t.Fatal(err)
	}
	table := dev.Status().Table
	patience := syncPatience
	syncPatience = 200 * time.Millisecond
	open := sync.OnceFunc(disk.closeGate(0))
	t.Cleanup(open) // else nothing ends
	fork := func() error {
		_, err := dev.Fork(store)
		return err
	}
	for range 2 {
		if err := within(t, "fork", fork); !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("error %v, want ETIMEDOUT", err)
		}
	}
	open()
	syncPatience = patience
	if _, err := f.WriteAt(forkBlock(t, 1), 8192); err != nil || dev.Status().Table != table {
		t.Errorf("the tables are %s, were %s; error %v", dev.Status().Table, table, err)
	}
	waitUntil(t, "the disk writes again", func() bool {
		if !dev.syncing.TryLock() {
			return false
		}
		dev.syncing.Unlock()
		return true
	})
	if err := fork(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if got := readDisk(t, f)[i*8192:][:8192]; !bytes.Equal(got, forkBlock(t, i)) {
			t.Errorf("chunk %d has other data", i)
		}
	}
}

// startFork starts a fork, and waits until the device holds its requests. The fork must not end
// before that. The channel receives its error.
func startFork(t *testing.T, dev *Device, fork func() error) <-chan error {
	t.Helper()
	forked := make(chan error, 1)
	go func() { forked <- fork() }() // received by the caller
	waitUntil(t, "the device holds its requests", func() bool {
		select {
		case err := <-forked:
			t.Fatalf("the fork ends while a write is in flight, error %v", err)
		default:
		}
		held := !dev.holding.TryLock()
		if !held {
			dev.holding.Unlock()
		}
		return held
	})
	return forked
}

// onMedium checks the records and the mark of a store.
func onMedium(t *testing.T, name string, content []byte, records uint64, frozen bool) {
	t.Helper()
	h, label, err := snapshot.ReadLabelled(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	s, err := snapshot.Scan(bytes.NewReader(content), h.Layout, uint64(len(content)), func(snapshot.Record) error { return nil })
	if err != nil || s.Records(h.Layout) != records || (label != nil && label.Frozen) != frozen {
		t.Errorf("%s: %d records, want %d; label %+v; error %v", name, s.Records(h.Layout), records, label, err)
	}
}

// durable returns what a disk has after a power cut that loses all of its cache. It had some content
// at its start.
func (d *cachingDisk) durable(before []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := cutDisk{medium: bytes.Clone(before)}
	for _, s := range d.steps {
		if s.disk == d {
			c.apply(s)
		}
	}
	for _, w := range c.cache {
		if w.flush {
			copy(c.medium[w.at:], w.data)
		}
	}
	return c.medium
}

// forkBlock is the data of a chunk.
func forkBlock(t *testing.T, number int) []byte {
	return stamp(alignedMemory(t, 8192), number*16, 1)
}

// heldWrite writes a chunk of a device whose store is a disk that keeps the write until open is called.
func (d *cachingDisk) heldWrite(t *testing.T, f *os.File, number int) (open func(), written <-chan error) {
	t.Helper()
	open = d.closeGate(2 * 8192) // behind header and records
	t.Cleanup(func() {           // a failed test must not leave the write
		if d.isClosed() {
			open()
		}
	})
	ended, data := make(chan error, 1), forkBlock(t, number)
	go func() { // the caller receives from the channel
		_, err := f.WriteAt(data, int64(number)*8192)
		ended <- err
	}()
	waitUntil(t, "the write has reached the store", d.isAtGate)
	return open, ended
}
