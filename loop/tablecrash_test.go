package loop

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// durableTables are tables of 16 MiB and more, on two files of 32 MiB, in which most records of
// a crash test are in both files.
var durableTables = map[string]string{
	"linear":           alternating("linear $%d %d"),
	"striped":          "0 32766 striped 2 3 $0 0 $1 64\n32766 100 linear $0 40000",
	"striped and zero": "0 32766 striped 2 3 $0 0 $1 64\n32766 100 linear $0 40000\n32866 8 zero\n32874 8 error",
	"crypt":            alternating("crypt aes-xts-plain64 " + hexKey + " 0 $%d %d"),
	"crypt over striped": "low,,,,0 32766 striped 2 3 $0 0 $1 64,32766 100 linear $0 40000;" +
		"top,,,,0 32800 crypt aes-xts-plain64 " + hexKey + " 0 /dev/mapper/low 0 1 allow_discards",
}

// alternating returns lines that change the file within the first records of a crash test.
func alternating(target string) string {
	var lines []string
	const length = 12 // sectors; a record has 8
	for i := range 50 {
		lines = append(lines, fmt.Sprintf("%d %d "+target, i*length, length, i%2, 8+i*length))
	}
	return strings.Join(append(lines, fmt.Sprintf("%d 33000 "+target, len(lines)*length, 0, 1000)), "\n")
}

// twoFiles makes two files of 32 MiB.
func twoFiles(t *testing.T, dir string) (paths []string) {
	t.Helper()
	for _, name := range []string{"first", "second"} {
		path := filepath.Join(dir, name)
		if err := os.Rename(sparseFile(t, dir), path); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// A write to a device of tables that was synced is whole in all its files
// after the server was killed.
func TestCrashTableKeepsWhatWasSynced(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	files := twoFiles(t, fileSystem(t, "ext4"))
	for name, text := range durableTables {
		t.Run(name, func(t *testing.T) {
			text := withDisks(text, files...)
			for round := range uint64(ublktest.Fewer(t, 3, 1)) {
				cmd, id := startServerWith(t, serveTableEnv+"="+text)
				durable := killWhileWriting(t, cmd, id, round)
				removeDead(t, ctl, id)
				dev := attachTable(t, ctl, text, Config{})
				checkRecords(t, dev.Path(), durable, round)
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A write to a device of tables that was synced is on the medium with all
// its parts, as TestCrashPowerCut tests it for one file.
func TestCrashTablePowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestKernel)
	for row, name := range slices.Sorted(maps.Keys(durableTables)) {
		text := durableTables[name]
		for _, cfg := range ublktest.Sample(t, row, Config{DirectIO: SwitchOff}, Config{DirectIO: SwitchOn}, Config{DirectIO: SwitchOn, ZeroCopy: SwitchOff}) {
			t.Run(fmt.Sprintf("%s direct %s zero copy %s", name, cfg.DirectIO, cfg.ZeroCopy), func(t *testing.T) {
				linear := fmt.Sprintf("0 163840 linear %s 0", nullDisk(t, 80, nil))
				disk := mappedDisk(t, linear)
				run(t, "mkfs.ext4", "-q", "-F", disk)
				dir := t.TempDir()
				run(t, "mount", disk, dir)
				text := withDisks(text, twoFiles(t, dir)...)

				dev := attachTable(t, ctl, text, cfg)
				f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
				durable := writeSome(t, f, alignedMemory(t, 4096))
				reloadMapped(t, disk, "0 163840 error")
				_ = f.Close()
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
				run(t, "umount", dir)

				reloadMapped(t, disk, linear)
				run(t, "mount", disk, dir)
				defer run(t, "umount", dir)
				dev = attachTable(t, ctl, text, cfg)
				checkRecords(t, dev.Path(), durable, 0)
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
