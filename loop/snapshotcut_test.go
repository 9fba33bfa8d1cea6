package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// What was flushed to a snapshot, or written with FUA, is there after a power cut, for this
// server and for the kernel. Every other sector has the bytes of the origin, or of a write that
// was not flushed.
func TestCrashSnapshotPowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	run(t, "modprobe", "-a", "dm_snapshot", "loop")
	for _, direct := range []Switch{SwitchOff, SwitchOn} {
		t.Run("direct "+string(direct), func(t *testing.T) {
			inEachMode(t, ctl, func(t *testing.T, cfg Config) {
				if cfg.Transfer.Name == "" || cfg.Transfer.Name == "none" {
					cfg.DirectIO = direct
					snapshotPowerCut(t, ctl, cfg)
				}
			})
		})
	}
}

func snapshotPowerCut(t *testing.T, ctl *ublk.Control, cfg Config) {
	disk := newCutMount(t)
	base, store := filepath.Join(disk.dir, "base"), filepath.Join(disk.dir, "store")
	mem := alignedMemory(t, 4096)
	writeFile(t, base, func(i uint64) []byte { return record(mem, i, 7777) })
	if err := newStore(t, store, 16384, 16<<20).Close(); err != nil { // it would keep the file system busy
		t.Fatal(err)
	}
	run(t, "sync")

	text := fmt.Sprintf("0 8192 snapshot %s %s P 32", base, store)
	cfg.Table = ""
	dev := attachTable(t, ctl, text, Config{ZeroCopy: cfg.ZeroCopy, DirectIO: cfg.DirectIO, Queues: cfg.Queues})
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	durable := writeSome(t, f, mem)
	for i := durable; i < 200; i += 3 { // without a flush
		if _, err := f.WriteAt(record(mem, i, 1), int64(i)*4096); err != nil {
			t.Fatal(err)
		}
	}
	disk.cut(t)
	_ = f.Close()
	_ = dev.Close() // cannot save the rest

	disk.restart(t)
	defer run(t, "umount", disk.dir)
	kernels := kernelsSnapshot(t, base, store)
	again := attachTable(t, ctl, text, Config{})
	ours := readDisk(t, openFile(t, again.Path(), os.O_RDONLY|unix.O_DIRECT))
	if string(ours) != string(kernels) {
		t.Error(firstDifference(ours, kernels))
	}
	for i := range uint64(len(ours) / 4096) {
		got := string(ours[i*4096:][:4096])
		if i < durable && got != string(record(mem, i, 0)) {
			t.Fatalf("durable write %d is lost", i)
		}
		if i >= durable && got != string(record(mem, i, 7777)) && got != string(record(mem, i, 1)) {
			t.Fatalf("block %d has bytes that nobody has written there", i)
		}
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeFile makes a file of 4 MiB of blocks.
func writeFile(t *testing.T, path string, block func(i uint64) []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range uint64(1024) {
		if _, err := f.Write(block(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// kernelsSnapshot returns what the kernel's snapshot of two files has.
func kernelsSnapshot(t *testing.T, base, store string) []byte {
	t.Helper()
	var loops []string
	for _, file := range []string{base, store} {
		node := strings.TrimSpace(run(t, "losetup", "--find", "--show", file))
		defer run(t, "losetup", "--detach", node)
		loops = append(loops, node)
	}
	name := "ublk-loop-cut"
	run(t, "dmsetup", "create", "--noudevsync", name, "--table", fmt.Sprintf("0 8192 snapshot %s %s P 32", loops[0], loops[1]))
	defer run(t, "dmsetup", "remove", "--retry", "--noudevsync", name)
	node := strings.TrimSpace(run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", name))
	f, err := os.Open(waitForDisk(t, "/dev/"+node))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return readDisk(t, f)
}
