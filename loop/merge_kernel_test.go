package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// snapshotFiles makes a base of random bytes and a large empty file.
func snapshotFiles(t *testing.T, mib int) (base, store string) {
	t.Helper()
	dir := t.TempDir()
	base, store = filepath.Join(dir, "base"), filepath.Join(dir, "store")
	if err := os.WriteFile(base, random(make([]byte, mib<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(store, 4<<30); err != nil {
		t.Fatal(err)
	}
	return base, store
}

// blockWriters writes to a device until stop is set, and checks each write by a read. Each writer
// has every fourth block of 4096 bytes.
func blockWriters(t *testing.T, path string, model []byte, stop *atomic.Bool) (wait func()) {
	const writers, size = 4, 4096
	var all sync.WaitGroup
	f := openFile(t, path, os.O_RDWR|unix.O_DIRECT)
	for w := range writers {
		mem := alignedMemory(t, 2*size)
		data, back := mem[:size], mem[size:]
		all.Go(func() {
			for i := 0; !stop.Load(); i++ {
				block := rand.IntN(len(model)/size/writers)*writers + w
				copy(data, bytes.Repeat(fmt.Appendf(nil, "%03d %05d %05d ", w, block, i%100000), size/16))
				_, err := f.WriteAt(data, int64(block)*size)
				if err == nil {
					_, err = f.ReadAt(back, int64(block)*size)
				}
				if err == nil && i%50 == 0 {
					err = f.Sync()
				}
				if err != nil || !bytes.Equal(data, back) {
					t.Errorf("block %d: error %v, or other data", block, err)
					return
				}
				copy(model[block*size:], data)
			}
		})
	}
	return all.Wait
}

// A device is merged while it is written to. No write is lost. A second merge, without writes,
// leaves an empty store and everything in the base.
func TestKernelMergeUnderIO(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for row, cfg := range []Config{{}, {ZeroCopy: SwitchOff}, {OnCrash: CrashReissue}} {
		for _, chunk := range ublktest.Sample(t, row, 8, 128) {
			t.Run(fmt.Sprintf("zero copy %s, on crash %s, chunks of %d", cfg.ZeroCopy, cfg.OnCrash, chunk), func(t *testing.T) {
				base, store := snapshotFiles(t, 8)
				dev := attachTable(t, ctl, fmt.Sprintf("0 16384 snapshot %s %s P %d", base, store, chunk), cfg)
				model, err := os.ReadFile(base)
				if err != nil {
					t.Fatal(err)
				}
				var stop atomic.Bool
				wait := blockWriters(t, dev.Path(), model, &stop)
				waitUntil(t, "enough exceptions", func() bool { return usedSectors(t, dev) > 8192 })
				chunks, err := dev.Merge(context.Background())
				if err != nil || chunks*uint64(chunk) < 4096 {
					t.Errorf("%d chunks, error %v", chunks, err)
				}
				stop.Store(true)
				wait()
				sameDisk(t, dev.Path(), model)
				if _, err := dev.Merge(context.Background()); err != nil {
					t.Error(err)
				}
				if used := usedSectors(t, dev); used != uint64(2*chunk) {
					t.Errorf("%d sectors are used after the merge", used)
				}
				sameDisk(t, dev.Path(), model)
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
				merged, err := os.ReadFile(base)
				if err != nil || !bytes.Equal(merged, model) {
					t.Errorf("the base has other data, error %v", err)
				}
			})
		}
	}
}

// The base can be a disk with large blocks, of which direct I/O reads no part.
func TestKernelMergeIntoLargeBlocks(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	base := disk4K(t)
	_, store := snapshotFiles(t, 0)
	dev := attachTable(t, ctl, fmt.Sprintf("0 16384 snapshot %s %s P 32", base, store), Config{})
	want := random(make([]byte, 16384*512))
	f := openFile(t, dev.Path(), os.O_RDWR)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if chunks, err := dev.Merge(context.Background()); err != nil || chunks != 512 {
		t.Errorf("%d chunks, error %v", chunks, err)
	}
	got := make([]byte, len(want))
	if _, err := openFile(t, base, os.O_RDONLY).ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the base has other data, error %v", err)
	}
}

// usedSectors returns the allocated sectors of a device's store.
func usedSectors(t *testing.T, dev *Device) uint64 {
	t.Helper()
	return dev.stack.Usages()[0].Allocated
}

func sameDisk(t *testing.T, path string, want []byte) {
	t.Helper()
	f := openFile(t, path, os.O_RDONLY|unix.O_DIRECT)
	got := alignedMemory(t, len(want))
	for at := 0; at < len(want); at += 1 << 20 {
		if _, err := f.ReadAt(got[at:at+1<<20], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("the device has other data")
	}
}

// A merge ends when its device is closed, and when its context ends.
func TestKernelMergeStops(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	base, store := snapshotFiles(t, 64)
	dev := attachTable(t, ctl, fmt.Sprintf("0 131072 snapshot %s %s P 8", base, store), Config{})
	f := openFile(t, dev.Path(), os.O_RDWR)
	want := random(make([]byte, 64<<20))
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(os.ErrDeadlineExceeded)
	if _, err := dev.Merge(ctx); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dev.merging.Lock() // as another merge or a fork does
	if _, err := dev.Merge(context.Background()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second merge: %v", err)
	}
	if _, err := dev.Fork(nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a fork during a merge: %v", err)
	}
	dev.merging.Unlock()
	ended := make(chan error, 1)
	go func() { _, err := dev.Merge(context.Background()); ended <- err }() // received below
	waitUntil(t, "the merge begins", func() bool {
		info, err := cowfile.Inspect(store)
		if err != nil {
			t.Fatal(err)
		}
		return info.Chunks < uint64(len(want))/4096
	})
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil && !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v", err)
	}
	if _, err := dev.Merge(context.Background()); !errors.Is(err, unix.ENODEV) || !strings.HasPrefix(err.Error(), "merge /dev/ublkb") {
		t.Errorf("error %v", err)
	}
	again := attachTable(t, ctl, fmt.Sprintf("0 131072 snapshot %s %s P 8", base, store), Config{})
	sameDisk(t, again.Path(), want)
}

// A disk that is the base of a device is not written to by others: neither by the merge of another store, with
// a device or without one, nor by a device of the disk.
func TestKernelMergeIntoDiskOfOthers(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	base := nullDisk(t, 8, nil)
	dir := t.TempDir()
	table := func(name string) string {
		path := filepath.Join(dir, name)
		if err := newStore(t, path, 4096, 16<<20).Close(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("0 16384 snapshot %s %s P 8", base, path)
	}
	one, other := attachTable(t, ctl, table("one"), Config{}), attachTable(t, ctl, table("other"), Config{})
	want := contentOf(t, other.Path())
	f := openFile(t, one.Path(), os.O_RDWR|unix.O_SYNC)
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	table("third")
	_, merge := one.Merge(context.Background())
	_, write := tryTable(ctl, fmt.Sprintf("0 16384 linear %s 0", base), Config{})
	_, without := cowfile.Merge(context.Background(), cowfile.MergeOptions{Path: filepath.Join(dir, "third"), Base: base})
	for what, err := range map[string]error{"merge": merge, "device of the disk": write, "cow merge": without} {
		if !errors.Is(err, unix.EBUSY) {
			t.Errorf("%s: error %v, want EBUSY", what, err)
		}
	}
	sameDisk(t, other.Path(), want)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Merge(context.Background()); err != nil {
		t.Error(err)
	}
	if got := contentOf(t, base)[:1<<20]; !bytes.Equal(got, bytes.Repeat([]byte{7}, 1<<20)) {
		t.Error("the base has other data after the merge")
	}
}

// A disk that a device writes to is not the origin of a new store, and a store there is not read.
func TestKernelCowBesideWriterOfDisk(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	base, store := nullDisk(t, 8, nil), nullDisk(t, 16, nil)
	create := func(name string) error {
		return cowfile.Create(cowfile.CreateOptions{Path: filepath.Join(t.TempDir(), name), Origin: base})
	}
	writer := attachTable(t, ctl, fmt.Sprintf("0 16384 linear %s 0", base), Config{})
	if err := create("refused"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("create: error %v, want EBUSY", err)
	}
	if err := errors.Join(writer.Close(), create("store")); err != nil {
		t.Fatal(err)
	}
	above := attachTable(t, ctl, fmt.Sprintf("0 16384 snapshot %s %s P 8", base, store), Config{})
	if _, err := cowfile.Diff(store); !errors.Is(err, unix.EBUSY) {
		t.Errorf("diff: error %v, want EBUSY", err)
	}
	if err := errors.Join(create("another"), above.Close()); err != nil {
		t.Error(err)
	}
	if c, err := cowfile.Diff(store); err != nil || len(c.Ranges) != 0 {
		t.Errorf("diff: %+v, error %v", c, err)
	}
}
