package loop

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// fio writes the whole device in random order, reads it back, and verifies a checksum in
// every block.
func TestKernelFioVerifies(t *testing.T) {
	ctl := ublktest.Kernel(t)
	inEachMode(t, ctl, func(t *testing.T, cfg Config) {
		for _, direct := range []Switch{SwitchOn, SwitchOff} {
			for _, depth := range []int{1, 32} {
				t.Run(fmt.Sprintf("direct %s, depth %d", direct, depth), func(t *testing.T) {
					cfg.DirectIO = direct
					dev := attach(t, ctl, sparseFile(t, fileSystem(t, "ext4")), cfg)
					run(t, "fio", "--name=verify", "--filename="+dev.Path(), "--direct=1", "--rw=randwrite",
						"--bsrange=4k-128k", "--size=16m", "--ioengine=libaio", fmt.Sprintf("--iodepth=%d", depth),
						"--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--fsync=64")
				})
			}
		}
	})
}

// A file system on the device keeps a tree of files after an unmount, and its checker
// finds no error.
func TestKernelFileSystems(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for _, fs := range []struct {
		kind        string
		mkfs, check []string
	}{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}},
	} {
		t.Run(fs.kind, func(t *testing.T) {
			inEachMode(t, ctl, func(t *testing.T, cfg Config) {
				if fs.kind != "ext4" {
					run(t, "modprobe", fs.kind)
				}
				image := filepath.Join(mountTmpfs(t), "image")
				if err := os.WriteFile(image, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(image, 320<<20); err != nil {
					t.Fatal(err)
				}
				dev := attach(t, ctl, image, cfg)
				run(t, fs.mkfs[0], append(fs.mkfs[1:], dev.Path())...)
				sums := fillTree(t, fs.kind, dev.Path())
				run(t, fs.check[0], append(fs.check[1:], dev.Path())...)
				checkTree(t, fs.kind, dev.Path(), sums)
			})
		})
	}
}

// fillTree mounts a file system and makes files in it. It returns their checksums.
func fillTree(t *testing.T, kind, disk string) map[string][32]byte {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-t", kind, disk, dir)
	defer run(t, "umount", dir)
	sums := map[string][32]byte{}
	for i := range 60 {
		name := fmt.Sprintf("%d/%d/%d", i%3, i%5, i)
		path := filepath.Join(dir, name)
		data := random(make([]byte, rand.IntN(256<<10)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 { // freed space is discarded and used again
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			run(t, "fstrim", dir)
			continue
		}
		sums[name] = sha256.Sum256(data)
	}
	return sums
}

func checkTree(t *testing.T, kind, disk string, sums map[string][32]byte) {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-t", kind, disk, dir)
	defer run(t, "umount", dir)
	for name, want := range sums {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(data) != want {
			t.Errorf("%s: other bytes than were written", name)
		}
	}
}
