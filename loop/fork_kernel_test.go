package loop

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// newStore makes an empty store with a label.
func newStore(t *testing.T, path string, chunk uint32, size int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := snapshot.NewLayout(chunk)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = snapshot.FormatLabelled(f, l, &snapshot.Label{UUID: snapshot.NewUUID()})
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := OpenTableDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// After a fork, the device and another one over the old store have the same contents, and
// neither sees what is then written to the other. The frozen store does not change. The tables
// of the status describe the device.
func TestKernelFork(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	base := sparseFile(t, dir)
	for _, zeroCopy := range ublktest.Sample(t, 0, SwitchAuto, SwitchOff) {
		t.Run("zero copy "+string(zeroCopy), func(t *testing.T) {
			path := func(name string) string { return filepath.Join(dir, string(zeroCopy)+name) }
			newStore(t, path("old"), 8192, 8<<20)
			cfg := Config{ZeroCopy: zeroCopy}
			dev := attachTable(t, ctl, fmt.Sprintf("0 8192 snapshot %s %s P 16", base, path("old")), cfg)
			f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
			changeDisk(t, f, 4<<20)
			for i := range 3 {
				before := readDisk(t, f)
				if _, err := dev.Fork(newStore(t, path(fmt.Sprint("new", i)), 8192, 8<<20)); err != nil {
					t.Fatal(err)
				}
				newStore(t, path(fmt.Sprint("other", i)), 8192, 8<<20)
				text := bytes.ReplaceAll([]byte(dev.Status().Table), []byte(path(fmt.Sprint("new", i))), []byte(path(fmt.Sprint("other", i))))
				frozen := contentOf(t, path("old"))
				other := openFile(t, attachTable(t, ctl, string(text), cfg).Path(), os.O_RDWR|unix.O_DIRECT)
				for _, disk := range []*os.File{f, other} {
					if got := readDisk(t, disk); !bytes.Equal(got, before) {
						t.Fatal(firstDifference(got, before))
					}
				}
				changeDisk(t, f, 4<<20)
				if got := readDisk(t, other); !bytes.Equal(got, before) {
					t.Error(firstDifference(got, before))
				}
				mine := readDisk(t, f)
				changeDisk(t, other, 4<<20)
				if got := readDisk(t, f); !bytes.Equal(got, mine) {
					t.Error(firstDifference(got, mine))
				}
				if !bytes.Equal(contentOf(t, path("old")), frozen) {
					t.Error("the frozen store has changed")
				}
			}
			refuseWriters(t, cfg, ctl, base, path("old"))
		})
	}
}

// A fork that is refused leaves neither the name of the new store, nor its lock, nor the file in
// the rings: the device can fork after more refusals than it can have stores.
func TestKernelForkRefusedOften(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	base, path := sparseFile(t, dir), func(name string) string { return filepath.Join(dir, name) }
	newStore(t, path("old"), 8192, 8<<20)
	dev := attachTable(t, ctl, fmt.Sprintf("0 8192 snapshot %s %s P 16", base, path("old")), Config{})
	create := func(name string) *NewFile {
		f, err := newfile.Create(path(name))
		if err != nil {
			t.Fatal(err)
		}
		l, err := snapshot.NewLayout(8192)
		if err == nil {
			err = f.File.Truncate(8 << 20)
		}
		if err == nil {
			err = snapshot.FormatLabelled(f.File, l, &snapshot.Label{UUID: snapshot.NewUUID()})
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	other := create("base2")
	defer other.Close()
	if err := os.WriteFile(path("base2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 70 { // more than the stack has room for
		f := create("new")
		if _, err := dev.Fork(f.File, f, other); !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
		object, err := identity.Of(f.File)
		if err != nil {
			t.Fatal(err)
		}
		if held, err := filelock.IsHeld(statefile.LockDir, object); err != nil || held {
			t.Fatalf("the lock is held: %v, error %v", held, err)
		}
		_ = f.Close()
	}
	if _, err := os.Stat(path("new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name is left: %v", err)
	}
	f := create("new")
	defer f.Close()
	if _, err := dev.Fork(f.File, f); err != nil {
		t.Fatal(err)
	}
	if files := dev.Status().Files; len(files) != 3 || files[2].File != path("new") {
		t.Errorf("files %+v", files)
	}
}

func contentOf(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A device forks while fio writes to ext4 on it with a queue that is full. fio finds all that it has
// written, e2fsck finds no error, no frozen store changes, and a device of the same tables has the same contents.
func TestKernelForkUnderLoad(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	dir := mountTmpfs(t)
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(base, 96<<20); err != nil {
		t.Fatal(err)
	}
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint("store", i)) }
	newStore(t, path(0), 16384, 128<<20)
	dev := attachTable(t, ctl, fmt.Sprintf("0 %d snapshot %s %s P 32", 96<<11, base, path(0)), Config{Queues: 1, Depth: 128})
	run(t, "mkfs.ext4", "-q", "-F", dev.Path())
	mounted := t.TempDir()
	run(t, "mount", dev.Path(), mounted)
	verify := func() <-chan error {
		fio := exec.Command("fio", "--name=fork", "--filename="+mounted+"/file", "--size=32M", "--rw=randwrite", "--bsrange=4k-32k", "--ioengine=io_uring",
			"--iodepth=128", "--direct=1", "--verify=crc32c", fmt.Sprint("--loops=", ublktest.Fewer(t, 3, 1)), "--output=/dev/null")
		if err := fio.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- fio.Wait() }()
		return ended
	}
	var frozen []uint32
	var pauses []time.Duration
	for len(pauses) < 3 { // forks take so long in emulation that fio may end after two
		pauses = forkWhile(t, verify(), pauses, func(i int) time.Duration {
			pause, err := dev.Fork(newStore(t, path(i+1), 16384, 128<<20))
			if err != nil {
				t.Fatal(err)
			}
			if i < 4 {
				frozen = append(frozen, sumOf(t, path(i)))
			}
			return pause
		})
	}
	for i, sum := range frozen {
		if now := sumOf(t, path(i)); now != sum {
			t.Errorf("store %d has changed since it was frozen", i)
		}
	}
	t.Logf("pauses of %d forks: %v", len(pauses), pauses)
	if err := unix.Unmount(mounted, 0); err != nil {
		t.Fatal(err)
	}
	run(t, "e2fsck", "-fn", dev.Path())
	content, text := readDisk(t, openFile(t, dev.Path(), os.O_RDONLY|unix.O_DIRECT)), dev.Status().Table
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	again := attachTable(t, ctl, text, Config{})
	if got := readDisk(t, openFile(t, again.Path(), os.O_RDONLY|unix.O_DIRECT)); !bytes.Equal(got, content) {
		t.Error(firstDifference(got, content))
	}
}

// sumOf returns a checksum of a file.
func sumOf(t *testing.T, path string) uint32 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return sum.Sum32()
}

// forkWhile forks a device until a program has ended without an error, at most ten times with those before. It adds
// the pauses to those of the forks before.
func forkWhile(t *testing.T, ended <-chan error, pauses []time.Duration, fork func(i int) time.Duration) []time.Duration {
	t.Helper()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			return pauses
		default:
		}
		if len(pauses) == 10 {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			return pauses
		}
		pauses = append(pauses, fork(len(pauses)))
	}
}

// refuseWriters checks that no device can write to a base and a frozen store.
func refuseWriters(t *testing.T, cfg Config, ctl *ublk.Control, base, frozen string) {
	t.Helper()
	for _, text := range []string{"0 8 linear " + base + " 0", "0 8192 snapshot " + base + " " + frozen + " P 16"} {
		dev, err := tryTable(ctl, text, cfg)
		if err == nil {
			_ = dev.Close()
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
