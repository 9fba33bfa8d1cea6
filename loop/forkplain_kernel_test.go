package loop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// plainSectors is the size of the devices of these tests.
const plainSectors = layeredSize / 512

// A device of a linear line gets a store while it is written to: no write is lost, and the file below
// has the data of one moment. Then the device has all that a device of layers has: it forks, reloads,
// and is served by the next server.
func TestKernelForkPlain(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, cfg := range ublktest.Sample(t, 0, Config{}, Config{ZeroCopy: SwitchOff}, Config{OnCrash: CrashReissue}) {
		t.Run(fmt.Sprintf("zero copy %s on crash %s", cfg.ZeroCopy, cfg.OnCrash), func(t *testing.T) {
			model := random(make([]byte, layeredSize))
			like := newLayered(t, model, cfg, func(text string, cfg Config) *Device { return attachTable(t, ctl, text, cfg) })
			l := &layered{T: t, dir: mountTmpfs(t)}
			l.chain = []string{filepath.Join(l.dir, "base")}
			if err := os.WriteFile(l.chain[0], model, 0o600); err != nil {
				t.Fatal(err)
			}
			l.dev = attachTable(t, ctl, fmt.Sprintf("0 %d linear %s 0", plainSectors, l.chain[0]), cfg)
			if got, want := l.dev.dev.Info().Features, like.dev.dev.Info().Features; got != want {
				t.Errorf("the device has %s, one with a store %s", got, want)
			}
			var stop atomic.Bool
			wait := sync.OnceFunc(blockWriters(t, l.dev.Path(), model, &stop))
			defer func() {
				stop.Store(true)
				wait()
			}()
			before := contentOf(t, l.chain[0])
			waitUntil(t, "some writes", func() bool { return !bytes.Equal(contentOf(t, l.chain[0]), before) })
			l.fork()
			frozen := contentOf(t, l.chain[0])
			waitUntil(t, "some exceptions", func() bool { return usedSectors(t, l.dev) > 64 })
			if !bytes.Equal(contentOf(t, l.chain[0]), frozen) {
				t.Error("the file below the store changes")
			}
			if want := fmt.Sprintf("0 %d snapshot %s %s P 16\n", plainSectors, l.chain[0], l.chain[1]); l.dev.Status().Table != want {
				t.Errorf("the tables are %q, want %q", l.dev.Status().Table, want)
			}
			refuseWriters(t, cfg, ctl, l.chain[0], l.chain[1])
			base := l.open(l.chain[0], os.O_RDONLY)
			if stores, err := basemark.List(base); err != nil || len(stores) != 1 {
				t.Errorf("the file says that %d stores need it, error %v", len(stores), err)
			}
			_ = base.Close()
			l.fork()
			unused := l.mergeBase()
			if err := l.reload(); err != nil {
				t.Fatal(err)
			}
			l.isFree(unused[0])
			stop.Store(true)
			wait()
			sameDisk(t, l.dev.Path(), model)
		})
	}
}

// A flush after the first fork also covers what was written before it, to the file that is below the store now:
// it is there after a power cut. The store has no label, so that no mark is written to the file.
func TestKernelForkPlainPowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	disk := newCutMount(t)
	base, store := filepath.Join(disk.dir, "base"), filepath.Join(disk.dir, "store")
	mem := alignedMemory(t, 4096)
	writeFile(t, base, func(i uint64) []byte { return record(mem, i, 7777) })
	if err := errors.Join(newStore(t, store, 16384, 16<<20).Close(), removeLabel(store)); err != nil {
		t.Fatal(err)
	}
	run(t, "sync")

	const before, all = 40, 60
	t.Run("write", func(t *testing.T) { // the files keep the file system busy until its end
		dev := attachTable(t, ctl, "0 8192 linear "+base+" 0", Config{DirectIO: SwitchOff})
		f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
		write := func(from, to uint64) {
			for i := from; i < to; i++ {
				if _, err := f.WriteAt(record(mem, i, 0), int64(i)*4096); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(0, before)
		above, err := OpenTableDevice(store)
		if err != nil {
			t.Fatal(err)
		}
		defer above.Close()
		if _, err := dev.Fork(above); err != nil {
			t.Fatal(err)
		}
		write(before, all)
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		disk.cut(t)
	})
	disk.restart(t)
	defer run(t, "umount", disk.dir)
	again := attachTable(t, ctl, fmt.Sprintf("0 8192 snapshot %s %s P 32", base, store), Config{})
	got := readDisk(t, openFile(t, again.Path(), os.O_RDONLY|unix.O_DIRECT))
	if err := again.Close(); err != nil { // it keeps the file system busy
		t.Fatal(err)
	}
	for i := range uint64(all) {
		if !bytes.Equal(got[i*4096:][:4096], record(mem, i, 0)) {
			t.Fatalf("write %d of %d was flushed, and is lost; the fork was after write %d", i, all, before)
		}
	}
}

// removeLabel removes the label of a store.
func removeLabel(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, snapshot.HeaderBlock)
	if _, err := f.ReadAt(block, 0); err != nil {
		return err
	}
	snapshot.ClearLabel(block)
	_, err = f.WriteAt(block, 0)
	return err
}

// hasAllRecords fails the test unless a flush saves the records of the uppermost store.
func (l *layered) hasAllRecords() {
	l.Helper()
	if err := openFile(l.T, l.dev.Path(), os.O_RDWR).Sync(); err != nil {
		l.Error(err)
	}
	saved := uint64(0)
	l.chunks(l.chain[len(l.chain)-1], func(uint64, []byte) error {
		saved++
		return nil
	})
	if u := l.dev.stack.Usages()[0]; saved != (u.Allocated-u.Metadata)/16 {
		l.Errorf("%d records are saved, the store has %+v", saved, u)
	}
}

// After its first fork, a device of a linear line still offers zeroes and discards. Zeroes are
// written, and discards change nothing that the file below shows.
func TestKernelForkPlainHoles(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	model := random(make([]byte, layeredSize))
	l := &layered{T: t, dir: t.TempDir()}
	l.chain = []string{filepath.Join(l.dir, "base")}
	if err := os.WriteFile(l.chain[0], model, 0o600); err != nil {
		t.Fatal(err)
	}
	l.dev = attachTable(t, ctl, fmt.Sprintf("0 %d linear %s 0", plainSectors, l.chain[0]), Config{})
	f := openFile(t, l.dev.Path(), os.O_RDWR|unix.O_DIRECT)
	change := func(what string, request uint, from, length uint64) {
		t.Helper()
		if err := blockIoctl(f, request, from, length); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	change("zeroes before the fork", unix.BLKZEROOUT, 1<<20, 1<<20)
	clear(model[1<<20 : 2<<20])
	l.fork()
	frozen := contentOf(t, l.chain[0])
	change("zeroes", unix.BLKZEROOUT, 3<<20+512, 1<<20)
	clear(model[3<<20+512 : 4<<20+512])
	change("discard", unix.BLKDISCARD, 5<<20, 1<<20)
	l.hasAllRecords()
	sameDisk(t, l.dev.Path(), model)
	if !bytes.Equal(contentOf(t, l.chain[0]), frozen) {
		t.Error("the file below the store has changed")
	}
}

// The file of a device can be longer than the device. The last chunk of the store then also has what the file
// has behind the end of the device, as the kernel's snapshot and its merge need it.
func TestKernelForkPlainShorter(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for _, cfg := range []Config{{}, {ZeroCopy: SwitchOff}} {
		model := random(make([]byte, layeredSize))
		l := &layered{T: t, dir: t.TempDir()}
		l.chain = []string{filepath.Join(l.dir, "base")}
		if err := os.WriteFile(l.chain[0], model, 0o600); err != nil {
			t.Fatal(err)
		}
		sectors := int64(plainSectors - 5)
		l.dev = attachTable(t, ctl, fmt.Sprintf("0 %d linear %s 0", sectors, l.chain[0]), cfg)
		l.fork()
		written := bytes.Repeat([]byte{7}, 512)
		if _, err := openFile(t, l.dev.Path(), os.O_RDWR|unix.O_SYNC).WriteAt(written, (sectors-1)*512); err != nil {
			t.Fatal(err)
		}
		copy(model[(sectors-1)*512:], written)
		chunks := 0
		l.chunks(l.chain[1], func(chunk uint64, data []byte) error {
			if chunks++; !bytes.Equal(data, model[chunk*8192:][:8192]) {
				t.Errorf("zero copy %s: chunk %d has other data", cfg.ZeroCopy, chunk)
			}
			return nil
		})
		if chunks != 1 {
			t.Errorf("the store has %d chunks", chunks)
		}
	}
}

// A device that is not one linear line from the start of a file, or is only read, does not get a store. A
// device that could is refused a file that is no store, and goes on.
func TestKernelForkPlainRefused(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := t.TempDir()
	base, damaged := filepath.Join(dir, "base"), filepath.Join(dir, "damaged")
	model := random(make([]byte, layeredSize))
	if err := errors.Join(os.WriteFile(base, model, 0o600), os.WriteFile(damaged, make([]byte, 64<<10), 0o600)); err != nil {
		t.Fatal(err)
	}
	store := newStore(t, filepath.Join(dir, "store"), 8192, 2*layeredSize)
	noStore, err := OpenTableDevice(damaged)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = noStore.Close() }()
	for _, tt := range []struct {
		text string
		cfg  Config
		file *os.File
		want error
	}{
		{"0 64 linear " + base + " 8", Config{}, store, errors.ErrUnsupported},
		{"0 64 linear " + base + " 0\n64 8 zero", Config{}, store, errors.ErrUnsupported},
		{"0 64 linear " + base + " 0", Config{ReadOnly: true}, store, errors.ErrUnsupported},
		{fmt.Sprintf("0 %d linear %s 0", plainSectors, base), Config{}, noStore, snapshot.ErrNew},
	} {
		dev, err := tryTable(ctl, tt.text, tt.cfg)
		if err != nil {
			t.Fatal(err)
		}
		before := dev.Status().Table
		for range 3 {
			if _, err := dev.Fork(tt.file); !errors.Is(err, tt.want) {
				t.Errorf("%s: error %v, want %v", tt.text, err, tt.want)
			}
		}
		if after := dev.Status().Table; after != before {
			t.Errorf("the tables were %s, are %s", before, after)
		}
		if tt.file == noStore {
			sameDisk(t, dev.Path(), model)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
}
