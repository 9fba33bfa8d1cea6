package loop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Data that was flushed, or written with FUA, is on the medium: it exists after the disk
// below the file system has stopped accepting writes, as in a power cut.
func TestCrashPowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.EveryKernel)
	for _, direct := range []Switch{SwitchOff, SwitchOn} {
		t.Run("direct "+string(direct), func(t *testing.T) {
			inEachMode(t, ctl, func(t *testing.T, cfg Config) {
				below := nullDisk(t, 64, nil)
				linear := fmt.Sprintf("0 131072 linear %s 0", below)
				disk := mappedDisk(t, linear)
				run(t, "mkfs.ext4", "-q", "-F", disk)
				dir := t.TempDir()
				run(t, "mount", disk, dir)
				image := sparseFile(t, dir)

				cfg.DirectIO = direct
				dev := attach(t, ctl, image, cfg)
				mem := alignedMemory(t, 4096)
				f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
				durable := writeSome(t, f, mem)
				reloadMapped(t, disk, "0 131072 error")
				_ = f.Close()
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
				run(t, "umount", dir)

				reloadMapped(t, disk, linear)
				run(t, "mount", disk, dir)
				defer run(t, "umount", dir)
				checkRecords(t, plainCopy(t, cfg, filepath.Join(dir, "image"), int(durable)*4096), durable, 0)
			})
		})
	}
}

// writeSome writes records in both durable ways, and returns their number.
func writeSome(t *testing.T, f *os.File, mem []byte) uint64 {
	t.Helper()
	const n = 40
	for i := range uint64(n) {
		record(mem, i, 0)
		if i%2 == 0 {
			if _, err := unix.Pwritev2(int(f.Fd()), [][]byte{mem}, int64(i)*4096, unix.RWF_DSYNC); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := f.WriteAt(mem, int64(i)*4096); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// reloadMapped gives a device-mapper device another table at once, without flushing any
// data first.
func reloadMapped(t *testing.T, disk, table string) {
	t.Helper()
	name := strings.TrimSpace(run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "name"))
	run(t, "dmsetup", "suspend", "--noudevsync", "--nolockfs", "--noflush", name)
	load := exec.Command("dmsetup", "load", name)
	load.Stdin = strings.NewReader(table + "\n")
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("dmsetup load: %v\n%s", err, out)
	}
	run(t, "dmsetup", "resume", "--noudevsync", name)
}
