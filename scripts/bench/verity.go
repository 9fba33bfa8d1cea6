package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The verity paths read an image with a hash tree. Each is on a RAM disk, so that the reads of the
// tree can be counted. The driver remembers no hash block in a cold job, and all in a warm one.

const (
	verityMiB  = 64
	treeMiB    = 4
	verityMode = "RAM disks, hash tree, "
	verityDisk = "ublkloopimage"
	treeDisk   = "ublklooptree"
	veritySalt = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	coldReads  = 2000 // of 4 KiB
)

// dmVerityPath is the yardstick of the verity paths.
const dmVerityPath = "dm-verity on loop, direct"

// verityBacking is an image with its tree.
type verityBacking struct {
	image, tree *backing
	root        string
}

// newVerityBacking fills a disk with random data, and another with the tree.
func (b *bench) newVerityBacking() (v *verityBacking, err error) {
	image, err := nullDisk("", verityDisk, ramDiskSettings(strconv.Itoa(verityMiB))...)
	if err != nil {
		return nil, err
	}
	tree, err := nullDisk("", treeDisk, ramDiskSettings(strconv.Itoa(treeMiB))...)
	if err != nil {
		return nil, errors.Join(err, image.remove())
	}
	v = &verityBacking{image: image, tree: tree}
	root := filepath.Join(os.TempDir(), "ublk-loop-bench-root")
	err = command("dd", "if=/dev/urandom", "of="+image.path, "bs=1M", fmt.Sprintf("count=%d", verityMiB), "conv=fsync")
	if err == nil {
		err = command(b.bin, "verity", "format", image.path, "--hash-file", tree.path, "--force", "--salt", veritySalt, "--root-hash-file", root)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(root)
	}
	if err != nil {
		return nil, errors.Join(err, v.remove())
	}
	v.root = strings.TrimSpace(string(text))
	return v, os.Remove(root)
}

func (v *verityBacking) remove() error { return errors.Join(v.image.remove(), v.tree.remove()) }

// verityPaths returns dm-verity, ublk-loop with verity, and both without it.
func (b *bench) verityPaths(v *verityBacking) []path {
	shape := []string{fmt.Sprintf("--queues=%d", b.queues), fmt.Sprintf("--depth=%d", b.depth)}
	flags := append([]string{"--root-hash", v.root, "--hash-file", v.tree.path}, shape...)
	return []path{
		v.dmVerity(), ublkLoop(b.bin, "verity", flags...), kernelLoop("on"), ublkLoop(b.bin, "copy", append(shape, "--zero-copy=off")...),
	}
}

// dmVerity is the kernel's target over loop devices of image and tree.
func (v *verityBacking) dmVerity() path {
	const mapped = "ublk-loop-bench"
	loop := kernelLoop("on")
	var below []string
	p := path{name: dmVerityPath, how: "losetup --direct-io=on; dmsetup create: verity"}
	p.detach = func(string) error {
		err := dmsetup("", "remove", "--retry", mapped)
		for _, device := range below {
			err = errors.Join(err, loop.detach(device))
		}
		below = nil
		return err
	}
	p.attach = func(image string) (string, error) {
		for _, disk := range []string{image, v.tree.path} {
			device, err := loop.attach(disk)
			if err != nil {
				return "", err
			}
			below = append(below, device)
		}
		table := fmt.Sprintf("0 %d verity 1 %s %s 4096 4096 %d 1 sha256 %s %s\n", verityMiB<<11, below[0], below[1], verityMiB<<8, v.root, veritySalt)
		return "/dev/mapper/" + mapped, dmsetup(table, "create", "--readonly", mapped)
	}
	return p
}

// verities measures hash trees. The disks are in memory, so only the clock of instructions fits.
func (b *bench) verities() (err error) {
	if b.clock != clockInstructions || b.check {
		return nil
	}
	if err := command("modprobe", "-a", "dm_verity", "loop"); err != nil {
		return err
	}
	// Without udev, nothing else loads the kernel's fast hash. Newer kernels have it built in.
	_ = command("modprobe", "sha256_ssse3")
	v, err := b.newVerityBacking()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.remove()) }()
	// The first job after a boot would compete with other work of the kernel.
	if _, err := runFio(fioArgs(v.image.path, Cell{"randread", 4 << 10, 32, 1}, b.runtime)); err != nil {
		return err
	}
	for _, c := range []Cell{{"randread", 4 << 10, 32, 1}, {"read", 128 << 10, 8, 1}} {
		for _, way := range b.verityPaths(v) {
			if err := b.runVerity(v, &way, c); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
	}
	return nil
}

// runVerity measures a cell cold and then warm.
func (b *bench) runVerity(v *verityBacking, way *path, c Cell) (err error) {
	if err := dropCaches(); err != nil {
		return err
	}
	device, err := way.attach(v.image.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, way.detach(device)) }()
	reads := coldReads
	if c.Mode == "read" {
		reads = verityMiB << 20 / c.Bytes
	}
	jobs := []struct {
		name string
		args []string
	}{
		{"cold", jobArgs(device, c, fmt.Sprintf("--number_ios=%d", reads))},
		{"all", jobArgs(device, Cell{"read", 128 << 10, 8, 1}, "--number_ios="+strconv.Itoa(verityMiB<<3))},
		{"warm", fioArgs(device, c, b.runtime)},
	}
	for _, job := range jobs {
		r := Result{Backing: verityMode + job.name, Path: way.name, Add: way.how, Cell: c, Fio: job.args}
		if err := b.measureVerity(&r); err != nil {
			return err
		}
		if job.name != "all" {
			b.report.Results = append(b.report.Results, r)
			fmt.Fprintf(os.Stderr, "%s, %s, %s: %.0f IOPS, %d reads of the tree (%s clock)\n", r.Backing, r.Path, r.Cell, r.IOPS, r.TreeReads, b.clock)
		}
	}
	return nil
}

// measureVerity runs a job, and counts the reads of the tree.
func (b *bench) measureVerity(r *Result) error {
	before, err := readsOf(treeDisk)
	if err != nil {
		return err
	}
	side, err := runFio(r.Fio)
	if err != nil {
		return err
	}
	after, err := readsOf(treeDisk)
	r.IOPS, r.BytesPerSecond, r.LatencyNs, r.TreeReads = side.IOPS, side.Bytes, side.percentiles(), after-before
	return err
}

// readsOf returns the number of reads that a disk has completed.
func readsOf(disk string) (int64, error) {
	data, err := os.ReadFile("/sys/block/" + disk + "/stat")
	if err != nil {
		return 0, err
	}
	count, _, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	return strconv.ParseInt(count, 10, 64)
}
