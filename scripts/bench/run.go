package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options configure a run.
type options struct {
	clock   string
	full    bool
	check   bool   // measure only what the regression check compares
	only    string // a part to measure; "" for all
	bin     string
	kublk   string // "" for none
	where   string // a disk for an ext4 file system, or a directory; "" for neither
	queues  int
	depth   int
	runtime time.Duration
	times   int // attaches
}

// bench is a run.
type bench struct {
	options
	report Report
	total  int // jobs
	done   int
}

// run measures everything and reports its progress on standard error.
func (b *bench) run() error {
	if err := b.describe(); err != nil {
		return err
	}
	switch b.only {
	case "cow":
		return b.snapshots()
	case "verity":
		return b.verities()
	case "attach":
		return errors.Join(command("modprobe", "loop"), withoutHugePages(b.attaches), withoutHugePages(b.mounts))
	case "create":
		return errors.Join(command("modprobe", "loop"), withoutHugePages(b.creates))
	}
	return withKeyFile(b.runWith)
}

// runWith measures everything. keyFile contains the key for encrypted paths.
func (b *bench) runWith(keyFile string) error {
	plans, err := b.plans(keyFile)
	if err != nil {
		return err
	}
	// This comes first, because programs start more slowly after caches have
	// been dropped.
	if err := b.lifecycle(); err != nil {
		return err
	}
	for _, p := range plans {
		b.total += len(p.paths) * len(p.cells)
	}
	for _, p := range plans {
		if err := b.runPlan(p); err != nil {
			return err
		}
	}
	return errors.Join(b.snapshots(), b.verities())
}

// plan says what to measure over one backing.
type plan struct {
	make  func() (*backing, error)
	cells []Cell
	paths []path
}

func (b *bench) plans(keyFile string) ([]plan, error) {
	for _, module := range []string{"loop", "dm_crypt"} {
		if err := command("modprobe", module); err != nil {
			return nil, err
		}
	}
	// Without udev, nothing else loads the kernel's fast ciphers. Other
	// processors do not have this module.
	_ = command("modprobe", "aesni_intel")
	shape := []string{fmt.Sprintf("--queues=%d", b.queues), fmt.Sprintf("--depth=%d", b.depth)}
	ours := func(name string, flags ...string) path { return ublkLoop(b.bin, name, append(flags, shape...)...) }
	standard, large, copied := ours(""), ours("--max-io=1M", "--max-io=1M"), ours("copy", "--zero-copy=off")
	linear := linearTable(b.bin, append([]string{"--max-io=1M"}, shape...)...)
	direct := kernelLoop("on")
	if b.check {
		return []plan{{nullBlk, shortCells, []path{direct, large, copied}}, {nullBlk, linearCells, []path{linear}}}, nil
	}
	files := []path{barePath(), direct, kernelLoop("off"), standard, ours("buffered", "--direct-io=off"), copied}
	disks := []path{barePath(), direct, kernelLoop("off"), standard, large, linear, copied}
	if b.kublk != "" {
		disks = append(disks,
			kublk(b.kublk, "auto_zc", b.queues, b.depth, "--auto_zc"),
			kublk(b.kublk, "auto_zc, batch", b.queues, b.depth, "--auto_zc", "-b"),
			kublk(b.kublk, "copy", b.queues, b.depth))
	}
	cells, onFiles := shortCells, fileCells
	if b.full {
		cells = fullCells(max(2, runtime.NumCPU()))
		onFiles = cells
	}
	encrypted := []path{
		dmCrypt(barePath(), ""), dmCrypt(direct, ""), dmCrypt(direct, " without queues", "no_read_workqueue", "no_write_workqueue"),
		ours("aes-xts", "--transfer=aes-xts-plain64", "--key-file="+keyFile, fmt.Sprintf("--sector-size=%d", cryptSector)),
	}
	plans := []plan{{nullBlk, cells, disks}, {encryptedNullBlk, cells, encrypted}}
	switch {
	case b.clock == clockInstructions:
		plans = append(plans, plan{ext4OnRAM, onFiles, files})
	case b.where != "":
		plans = append(plans, plan{func() (*backing, error) { return ext4File(b.where) }, onFiles, files})
	}
	buffered := []path{kernelLoop("off"), ours("buffered", "--direct-io=off"), ours("copy, buffered", "--direct-io=off", "--zero-copy=off")}
	return append(plans, plan{tmpfsFile, onFiles, buffered}), nil
}

func (b *bench) runPlan(p plan) (err error) {
	back, err := p.make()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.remove()) }()
	// The first job after a boot would compete with other work of the kernel.
	if _, err := runFio(fioArgs(back.path, Cell{"randread", 4 << 10, 32, 1}, time.Second)); err != nil {
		return err
	}
	for _, way := range p.paths {
		if way.diskOnly && !back.isDisk {
			continue
		}
		if err := b.runPath(back, &way, p.cells); err != nil {
			return fmt.Errorf("%s over %s: %w", way.name, back.name, err)
		}
	}
	return nil
}

// runPath attaches a device and measures the cells over one path.
func (b *bench) runPath(back *backing, way *path, cells []Cell) (err error) {
	if err := dropCaches(); err != nil {
		return err
	}
	device, err := way.attach(back.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, way.detach(device)) }()
	if way.cached {
		if err := command("dd", "if="+device, "of=/dev/null", "bs=1M"); err != nil {
			return err
		}
	}
	pids, err := way.serverPIDs()
	if err != nil {
		return err
	}
	var start time.Duration
	if !b.check {
		if start, err = startup(oneIOArgs(device, cells[0])); err != nil {
			return err
		}
	}
	for _, c := range cells {
		r := Result{Backing: back.name, Path: way.name, Add: way.how, Cell: c, Fio: fioArgs(device, c, b.runtime)}
		if err := b.measure(&r, pids, start); err != nil {
			return err
		}
		b.report.Results = append(b.report.Results, r)
		b.done++
		fmt.Fprintf(os.Stderr, "[%d/%d] %s, %s, %s: %.0f IOPS (%s clock)\n", b.done, b.total, back.name, way.name, c, r.IOPS, b.clock)
	}
	return nil
}

// dropCaches writes and drops all cached pages. Otherwise a path would find
// dirty pages of the previous path, and a direct read would wait for them.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// startup returns the CPU time to start and end a job that does almost nothing.
// This time does not belong to an I/O.
func startup(args []string) (time.Duration, error) {
	before, err := usageOf(nil)
	if err != nil {
		return 0, err
	}
	for range startups {
		if _, err := runFio(args); err != nil {
			return 0, err
		}
	}
	after, err := usageOf(nil)
	return (after.all - before.all) / startups, err
}

// startups is the number of starts over which the time is averaged, because the
// clock has ticks of 10 ms.
const startups = 3

// measure runs a job whose start takes the given time. Except for the
// regression check, it also measures the cost of an I/O.
func (b *bench) measure(r *Result, pids []int, start time.Duration) error {
	before, err := usageOf(pids)
	if err != nil {
		return err
	}
	side, err := runFio(r.Fio)
	if err != nil {
		return err
	}
	r.IOPS, r.BytesPerSecond, r.LatencyNs = side.IOPS, side.Bytes, side.percentiles()
	if b.check {
		return nil
	}
	after, err := usageOf(pids)
	if err != nil {
		return err
	}
	r.CPUNs = float64(after.all-before.all-start) / float64(side.IOs)
	r.ServerNs = float64(after.server-before.server) / float64(side.IOs)
	if len(pids) > 0 {
		r.Enters, err = entersPerIO(r, pids, b.runtime/4)
	}
	return err
}

// entersPerIO runs a job again, because counting its system calls takes time.
func entersPerIO(r *Result, pids []int, runtime time.Duration) (float64, error) {
	counter, err := countEnters(pids)
	if err != nil {
		return 0, err
	}
	side, err := runFio(fioArgs(strings.TrimPrefix(r.Fio[2], "--filename="), r.Cell, runtime))
	if err != nil {
		return 0, errors.Join(err, counter.close())
	}
	enters, err := counter.count()
	return float64(enters) / float64(side.IOs), errors.Join(err, counter.close())
}

// describe records the other data needed to repeat the run.
func (b *bench) describe() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	b.report = Report{
		Time: time.Now().UTC().Format(time.RFC3339), Clock: b.clock,
		Kernel: unix.ByteSliceToString(uts.Release[:]), CPUs: runtime.NumCPU(), Versions: map[string]string{},
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			b.report.CPU = strings.TrimSpace(value)
			break
		}
	}
	for name, args := range map[string][]string{
		"fio": {"fio", "--version"}, "ublk-loop": {b.bin, "version"}, "losetup": {"losetup", "--version"},
	} {
		if b.report.Versions[name], err = output(args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}
