package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// backing is a file or disk to which devices are attached.
type backing struct {
	name   string
	path   string
	isDisk bool
	remove func() error
}

const backingBytes = 1 << 30

// nullBlk makes a disk that completes requests at once, without I/O, in the
// context of the caller. Its requests are limited to 127 KiB, the block layer's
// default.
func nullBlk() (*backing, error) {
	return nullDisk("null_blk", "ublkloopbench", [2]string{"size", "1024"})
}

// ramDisk makes a null_blk disk that keeps its data. With the clock of
// instructions it replaces a real disk, because an emulated machine waits for a
// real disk by another clock.
func ramDisk() (*backing, error) {
	return nullDisk("RAM disk", "ublkloopram", ramDiskSettings("1536")...)
}

func ramDiskSettings(mib string) [][2]string {
	return [][2]string{{"size", mib}, {"memory_backed", "1"}, {"max_sectors", "2048"}}
}

func nullDisk(name, node string, settings ...[2]string) (*backing, error) {
	dir := "/sys/kernel/config/nullb/" + node
	if err := command("modprobe", "null_blk", "nr_devices=0"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Dir(dir)); errors.Is(err, os.ErrNotExist) {
		if err := command("mount", "-t", "configfs", "none", "/sys/kernel/config"); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	b := &backing{name: name, path: "/dev/" + node, isDisk: true, remove: func() error { return os.Remove(dir) }}
	settings = append(settings, [2]string{"irqmode", "0"}, [2]string{"queue_mode", "2"}, [2]string{"submit_queues", "1"}, [2]string{"power", "1"})
	for _, set := range settings {
		if err := os.WriteFile(filepath.Join(dir, set[0]), []byte(set[1]), 0); err != nil {
			return nil, errors.Join(err, b.remove())
		}
	}
	return b, nil
}

// ext4OnRAM makes a file in an ext4 on a RAM disk.
func ext4OnRAM() (*backing, error) {
	disk, err := ramDisk()
	if err != nil {
		return nil, err
	}
	file, err := ext4On("ext4 on a RAM disk", disk.path)
	if err != nil {
		return nil, errors.Join(err, disk.remove())
	}
	removeFile := file.remove
	file.remove = func() error { return errors.Join(removeFile(), disk.remove()) }
	return file, nil
}

// ext4File makes a file in an ext4 on a disk, or in a directory.
func ext4File(where string) (*backing, error) {
	info, err := os.Stat(where)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return fileIn("file in "+where, where, func() error { return nil })
	}
	return ext4On("ext4 on "+where, where)
}

func ext4On(name, disk string) (*backing, error) {
	if err := command("mke2fs", "-q", "-F", "-t", "ext4", disk); err != nil {
		return nil, err
	}
	return mountedFile(name, "ext4", disk)
}

func tmpfsFile() (*backing, error) { return mountedFile("tmpfs", "tmpfs", "none") }

func mountedFile(name, kind, what string) (*backing, error) {
	dir, err := os.MkdirTemp("", "ublk-loop-bench")
	if err != nil {
		return nil, err
	}
	if err := command("mount", "-t", kind, what, dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return fileIn(name, dir, func() error { return errors.Join(command("umount", dir), os.Remove(dir)) })
}

// fileIn makes a file and writes all of its bytes, so that no job has to
// allocate blocks.
func fileIn(name, dir string, remove func() error) (*backing, error) {
	path := filepath.Join(dir, "ublk-loop-bench.img")
	err := command("dd", "if=/dev/zero", "of="+path, "bs=1M", fmt.Sprintf("count=%d", backingBytes>>20), "conv=fsync")
	b := &backing{name: name, path: path, remove: func() error { return errors.Join(os.Remove(path), remove()) }}
	if err != nil {
		return nil, errors.Join(err, b.remove())
	}
	return b, nil
}

// command runs a program. The output is only used if the program fails.
func command(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
