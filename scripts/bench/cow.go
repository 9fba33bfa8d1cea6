package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The copy-on-write paths show an image with its changes in a store. Each job has a new store.

// cowImageBytes is the size of the image, and cowStoreMiB that of the store's disk.
const (
	cowImageBytes = 256 << 20
	cowStoreMiB   = "512"
	cowWrites     = 2000 // first writes of a job
	cowRewritten  = 32 << 20
	cowFilledMiB  = 160 // more of a store than a job uses
)

// Modes of the copy-on-write cells.
const (
	modeFirstWrite = "first write"
	modeRewrite    = "rewrite"
	modeUnchanged  = "read of the origin"
)

// chunksOf is in the names of the backings of these results.
const chunksOf = ", chunks of "

// dmSnapshotPath is the yardstick of the copy-on-write paths.
const dmSnapshotPath = "dm-snapshot on loop, direct"

// cowPathName is the beginning of the names of ublk-loop's paths with a store.
const cowPathName = "ublk-loop cow"

// cowPath attaches an image with a store.
type cowPath struct {
	name   string
	attach func(image, store string, chunk int) (device string, err error)
	detach func(device string) error
	// plain is set if the path has no store, as the limit of rewrites and reads.
	plain bool
}

// cowPaths returns dm-snapshot and the ways of ublk-loop.
func (b *bench) cowPaths() []cowPath {
	shape := []string{fmt.Sprintf("--queues=%d", b.queues), fmt.Sprintf("--depth=%d", b.depth)}
	ours := func(name string, flags ...string) cowPath {
		return cowPath{
			name: strings.TrimSpace(cowPathName + " " + name),
			attach: func(image, store string, chunk int) (string, error) {
				with := fmt.Sprintf("--cow=%s,chunk=%dK", store, chunk>>10)
				return output(b.bin, append(append([]string{"add", with}, append(flags, shape...)...), image)...)
			},
			detach: func(device string) error { return command(b.bin, "del", device) },
		}
	}
	plain := ublkLoop(b.bin, "", shape...)
	return []cowPath{dmSnapshot(), ours(""), ours("--on-crash", "--on-crash=requeue"), {
		name: plain.name, plain: true, detach: plain.detach,
		attach: func(image, _ string, _ int) (string, error) { return plain.attach(image) },
	}}
}

// dmSnapshot is the kernel's target, in the format P.
func dmSnapshot() cowPath {
	const mapped = "ublk-loop-bench"
	var loops []string
	detach := func(string) error {
		err := dmsetup("", "remove", "--retry", mapped)
		for _, device := range slices.Backward(loops) {
			err = errors.Join(err, command("losetup", "--detach", device))
		}
		loops = nil
		return err
	}
	return cowPath{name: dmSnapshotPath, detach: detach, attach: func(image, store string, chunk int) (string, error) {
		if err := makeSparse(store); err != nil {
			return "", err
		}
		for _, file := range []string{image, store} {
			device, err := output("losetup", "--find", "--show", "--direct-io=on", file)
			if err != nil {
				return "", err
			}
			loops = append(loops, device)
		}
		table := fmt.Sprintf("0 %d snapshot %s %s P %d\n", cowImageBytes>>9, loops[0], loops[1], chunk>>9)
		return "/dev/mapper/" + mapped, dmsetup(table, "create", mapped)
	}}
}

// makeSparse makes a store in a file system for the kernel, which needs an empty one.
func makeSparse(store string) error {
	if _, err := os.Stat(store); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return command("truncate", "-s", cowStoreMiB+"M", store)
}

// cowCell is a job, for chunks of a size.
type cowCell struct {
	Cell
	chunk int
}

func cowCells(check bool) (cells []cowCell) {
	chunks := []int{16 << 10, 64 << 10}
	if check {
		chunks = chunks[:1]
	}
	for _, chunk := range chunks {
		for _, depth := range []int{1, 32} {
			cells = append(cells, cowCell{Cell{modeFirstWrite, 4 << 10, depth, 1}, chunk})
		}
	}
	if check {
		return cells
	}
	for _, c := range []Cell{{modeRewrite, 4 << 10, 32, 1}, {modeRewrite, 4 << 10, 1, 1}, {modeUnchanged, 4 << 10, 32, 1}} {
		cells = append(cells, cowCell{c, 64 << 10})
	}
	return cells
}

// snapshots measures copy-on-write. The disks are in memory, so only the clock of instructions
// fits.
func (b *bench) snapshots() error {
	if b.clock != clockInstructions {
		return nil
	}
	err := b.copyOnWrite(cowDisks)
	if err != nil || b.check {
		return err
	}
	return b.copyOnWrite(cowFiles)
}

// copyOnWrite measures snapshots over a backing.
func (b *bench) copyOnWrite(makeBacking func(bin string) (*cowBacking, error)) (err error) {
	if err := command("modprobe", "-a", "dm_snapshot", "loop"); err != nil {
		return err
	}
	back, err := makeBacking(b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.remove()) }()
	// The first job after a boot would compete with other work of the kernel.
	if _, err := runFio(fioArgs(back.image, Cell{"randread", 4 << 10, 32, 1}, b.runtime)); err != nil {
		return err
	}
	if !b.check {
		if err := withoutHugePages(func() error { return b.cowAttaches(back) }); err != nil {
			return err
		}
	}
	for _, c := range cowCells(b.check) {
		for _, way := range b.cowPaths() {
			if way.plain && c.Mode == modeFirstWrite {
				continue
			}
			if err := b.runCow(back, &way, &c); err != nil {
				return fmt.Errorf("%s over %s: %w", way.name, back.name, err)
			}
		}
	}
	return nil
}

// runCow measures one job with a new store.
func (b *bench) runCow(back *cowBacking, way *cowPath, c *cowCell) (err error) {
	store, removeStore, err := back.store()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeStore()) }()
	if err := dropCaches(); err != nil {
		return err
	}
	device, err := way.attach(back.image, store, c.chunk)
	if err != nil {
		return err
	}
	r := Result{Backing: back.name + chunksOf + fmt.Sprintf("%dK", c.chunk>>10), Path: way.name, Cell: c.Cell, Fio: b.cowJob(device, c)}
	if err = b.measureCow(back, &r, device); err == nil {
		err = way.detach(device)
	} else {
		return errors.Join(err, way.detach(device))
	}
	b.report.Results = append(b.report.Results, r)
	fmt.Fprintf(os.Stderr, "%s, %s, %s: %.0f IOPS, %.1f KiB below (%s clock)\n", r.Backing, r.Path, r.Cell, r.IOPS, r.WrittenPerIO/1024, b.clock)
	return err
}

// measureCow runs the job, and counts what reaches the disks until everything is on them.
func (b *bench) measureCow(back *cowBacking, r *Result, device string) error {
	if r.Mode == modeRewrite {
		first := []string{
			"fio", "--name=first", "--filename=" + device, "--rw=write", "--bs=256k", "--direct=1", "--ioengine=io_uring",
			"--end_fsync=1", "--output-format=json", "--thread", "--size=" + strconv.Itoa(cowRewritten),
		}
		if _, err := runFio(first); err != nil {
			return err
		}
	}
	before, err := writtenTo(back.disks)
	if err != nil {
		return err
	}
	side, err := runFio(r.Fio)
	if err != nil {
		return err
	}
	after, err := writtenTo(back.disks)
	if err != nil {
		return err
	}
	r.IOPS, r.BytesPerSecond, r.LatencyNs = side.IOPS, side.Bytes, side.percentiles()
	r.WrittenPerIO = float64(after-before) / float64(side.IOs)
	return nil
}

// cowJob returns the command line of a job.
func (b *bench) cowJob(device string, c *cowCell) []string {
	cell := c.Cell
	switch c.Mode {
	case modeFirstWrite:
		// Each write is in the middle of a chunk of its own.
		cell.Mode = fmt.Sprintf("write:%d", c.chunk-c.Bytes)
		return jobArgs(device, cell, fmt.Sprintf("--offset=%d", c.chunk/2), fmt.Sprintf("--number_ios=%d", cowWrites))
	case modeRewrite:
		cell.Mode = "randwrite"
	default:
		cell.Mode = "randread"
	}
	return append(fioArgs(device, cell, b.runtime), "--size="+strconv.Itoa(cowRewritten))
}
