package loop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A file system on a snapshot has all files that were synced before a power cut, and its checker finds
// no error after the log was replayed. The power is cut at any write or flush of the store.
func TestKernelSnapshotFileSystemPowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestAndNewest)
	run(t, "modprobe", "xfs")
	for _, c := range []struct {
		fs  cutFileSystem
		cfg Config
	}{
		{cutFileSystem{"xfs", []string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}}, Config{}},
		{cutFileSystem{"xfs", []string{"mkfs.xfs", "-q", "-f"}, []string{"xfs_repair", "-n"}}, Config{ZeroCopy: SwitchOff, OnCrash: CrashReissue}},
		{cutFileSystem{"ext4", []string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}}, Config{}},
	} {
		t.Run(fmt.Sprintf("%s, zero copy %s, on crash %s", c.fs.kind, c.cfg.ZeroCopy, c.cfg.OnCrash), func(t *testing.T) {
			snapshotFileSystemPowerCut(t, ctl, c.fs, c.cfg)
		})
	}
}

// cutFileSystem is a file system, with the commands that make and check it.
type cutFileSystem struct {
	kind        string
	mkfs, check []string
}

func snapshotFileSystemPowerCut(t *testing.T, ctl *ublk.Control, fs cutFileSystem, cfg Config) {
	const size = 320 << 20 // xfs needs 300 MiB
	base := filepath.Join(mountTmpfs(t), "base")
	if err := errors.Join(os.WriteFile(base, nil, 0o600), os.Truncate(base, size)); err != nil {
		t.Fatal(err)
	}
	run(t, fs.mkfs[0], append(fs.mkfs[1:], base)...)
	var h diskHistory
	store := newCachingDisk(t, ctl, &h, make([]byte, 48<<20))
	text := fmt.Sprintf("0 %d snapshot %s %s P 32", size/512, base, store.path)
	var synced []map[string][32]byte
	t.Run("write", func(t *testing.T) {
		dev := attachTable(t, ctl, text, cfg)
		synced = syncFiles(t, fs.kind, dev.Path(), h.mark)
	})
	steps := h.steps
	// ext4 does not survive a torn superblock, which has two sectors of 512 bytes and a checksum.
	disk, event := &cutDisk{medium: make([]byte, len(store.content)), sector: 4096}, 0
	ends := make(map[int]bool)
	for range ublktest.Repeats(t, "UBLK_LOOP_PREFIXES", 4, 20) {
		ends[rand.IntN(len(steps))] = true
	}
	for i, s := range steps {
		if s.disk == nil {
			event = s.mark
		} else {
			disk.apply(s)
		}
		if !ends[i] {
			continue
		}
		h.restore(nil, []*cachingDisk{store}, [][]byte{disk.cut()})
		t.Run(fmt.Sprintf("step %d of %d, %d files", i, len(steps), len(synced[event])), func(t *testing.T) {
			dev := attachTable(t, ctl, text, Config{})
			checkTree(t, fs.kind, dev.Path(), synced[event])
			run(t, fs.check[0], append(fs.check[1:], dev.Path())...)
		})
	}
}

// syncFiles makes, changes and removes files on a disk. It returns the checksums of the files that
// were synced at each mark, without those that have changed later.
func syncFiles(t *testing.T, kind, disk string, mark func(int)) (synced []map[string][32]byte) {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-t", kind, disk, dir)
	defer run(t, "umount", dir)
	now := map[string][32]byte{}
	synced = append(synced, maps.Clone(now))
	for i := range 80 {
		name := fmt.Sprintf("%d/%d", i%3, rand.IntN(40))
		for _, earlier := range synced {
			delete(earlier, name)
		}
		delete(now, name)
		path, data := filepath.Join(dir, name), bytes.Repeat(random(make([]byte, 1<<10)), rand.IntN(64))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			continue // not synced
		}
		for _, path := range []string{path, filepath.Dir(path), dir} {
			if err := syncPath(path); err != nil {
				t.Fatal(err)
			}
		}
		now[name] = sha256.Sum256(data)
		synced = append(synced, maps.Clone(now))
		mark(len(synced) - 1)
	}
	return synced
}

// syncPath makes a file or directory durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
