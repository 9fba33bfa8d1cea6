package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
)

type addOptions struct {
	file       string
	table      string // the file of --table
	hasTable   bool   // --table or --cow is given
	fd         int    // of --fd
	hasFD      bool   // --fd is given
	cow        cowfile.TableOptions
	config     loop.Config
	transfer   transferOptions
	verity     verityOptions
	autoclear  time.Duration
	standalone bool
	root       bool
	foreground bool
	json       bool
	logFile    string
	hasLogFile bool // --log-file is given
}

func newAddCommand(a *app) *cobra.Command {
	var opts addOptions
	cmd := &cobra.Command{
		Use:        "add FILE | --fd N | --table FILE",
		SuggestFor: []string{"attach", "create"},
		Short:      "Attach a file, a partition or a disk, and print the path of its device",
		Long: "Attach a file, a partition or a disk, and print the path of its device. The device can " +
			"be opened when add returns. A process in the background serves it until del.\n\n" +
			"With --cow the changes of the device go to another file.\n" +
			"With --table the device is what a device-mapper table makes of files and disks.\n" +
			"With --root-hash each block of an image is checked when it is read.",
		Args: arguments(0, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := opts.checkObject(cmd, args); err != nil {
				return err
			}
			opts.hasLogFile = cmd.Flags().Changed("log-file")
			if err := opts.checkAutoclear(cmd); err != nil {
				return err
			}
			if err := opts.checkRoot(cmd); err != nil {
				return err
			}
			if err := opts.verity.check(cmd); err != nil {
				return err
			}
			if err := opts.transfer.check(cmd, &opts.config.Transfer); err != nil {
				return err
			}
			return a.runAdd(cmd.Context(), opts)
		},
	}
	opts.addFlags(cmd)
	return cmd
}

const (
	maxQueues = 4096
	maxDepth  = 4096
	maxIO     = 32 << 20
)

// parseMaxIO parses the size of the largest request.
func parseMaxIO(text string) (uint32, error) {
	page := uint32(os.Getpagesize())
	return parseSizeWithin(text, page, maxIO, page)
}

// autoclearDefault is the time that --autoclear without a value stands for.
const autoclearDefault = "10s"

func (o *addOptions) addFlags(cmd *cobra.Command) {
	f, c := cmd.Flags(), &o.config
	f.SortFlags = false
	c.DirectIO, c.ZeroCopy = loop.SwitchAuto, loop.SwitchAuto
	filledVar(f, &o.table, "table", "serve the device-mapper table, or stack of tables, in `FILE` (-: standard input)")
	f.Var(parsed(&o.fd, parseFD, "N"), "fd", "attach the file of the open descriptor N, which need not have a name")
	f.Var(cowFlag{&o.cow}, "cow", "write changes to the file or disk STORE, which is made if it is missing. The attached file is only read")
	f.VarP(parsed(&c.ID, parseNewID, "N"), "id", "n", "make /dev/ublkbN (default: the first free number)")
	f.BoolVarP(&c.ReadOnly, "read-only", "r", false, "make a read-only device, and open the file read-only")
	f.VarP(sizeFlag(&c.Offset), "offset", "o", "start of the device in the file")
	f.Var(sizeFlag(&c.SizeLimit), "sizelimit", "maximum size of the device (0: to the end of the file)")
	f.VarP(parsed(&c.SectorSize, parseSector, "BYTES"), "sector-size", "b", "logical block size: 512, 1024, 2048 or 4096 (default: the disk's, or for a file that of its partition table, or 512)")
	f.Var(switchFlag(&c.DirectIO), "direct-io", "direct I/O: auto (if possible), on (fail if not), off")
	f.BoolVarP(&c.PartScan, "partscan", "P", false, "let the kernel look for partitions")
	f.VarP(countFlag(&c.Queues, maxQueues), "queues", "q", "number of queues (default and maximum: one for each CPU)")
	f.VarP(countFlag(&c.Depth, maxDepth), "depth", "d", "requests that a queue takes at once (default: 128, or 64 without zero copy)")
	f.Var(parsed(&c.MaxIOBytes, parseMaxIO, "BYTES"), "max-io", "size of the largest request (default: the disk's, but at most 256K without zero copy)")
	f.Var(switchFlag(&c.ZeroCopy), "zero-copy", "use the pages of requests in place: auto (if possible and safe), on (fail if not possible; a risk over a disk that verifies checksums, because data that changes while it is written may become unreadable), off")
	o.transfer.addFlags(f, &c.Transfer)
	o.verity.addFlags(f)
	f.Var(onCrashFlag(&c.OnCrash), "on-crash", "when the server is killed: remove the disk (fail, the default), or keep it for recover, and fail (requeue) or repeat (reissue) the requests that the server had")
	f.BoolVar(&c.Shared, "shared", false, "attach a file that another process uses")
	f.Var(durationFlag{&o.autoclear}, "autoclear", "remove the device when it is no longer in use, but not within the first TIME (needs serve)")
	f.Lookup("autoclear").NoOptDefVal = autoclearDefault
	f.BoolVar(&o.standalone, "standalone", false, "serve in a separate process even if serve runs (implied by --log-file)")
	f.BoolVar(&o.root, "root-storage", false, "serve the root file system: the server outlives the initramfs, in which add must run, and the end of other processes at a shutdown (implies --standalone)")
	f.BoolVar(&o.foreground, "foreground", false, "serve in this process, until SIGINT, SIGTERM or SIGHUP")
	f.BoolVar(&o.json, "json", false, "print the device as list --json does, instead of its path")
	filledVar(f, &o.logFile, "log-file", "append the server's log to `FILE`, as JSON lines")
}

// checkAutoclear refuses --autoclear if it is not positive, or if serve would not serve
// the device.
func (o *addOptions) checkAutoclear(cmd *cobra.Command) error {
	switch {
	case o.autoclear <= 0 && cmd.Flags().Changed("autoclear"):
		return report.Usage(fmt.Errorf("--autoclear %s: not longer than 0", o.autoclear), helpHint(cmd))
	case o.autoclear > 0 && (o.standalone || o.foreground || o.hasLogFile):
		return report.Usage(errors.New("--autoclear: only serve removes devices, and not with --standalone, --foreground or --log-file"), helpHint(cmd))
	}
	return nil
}

func (a *app) runAdd(ctx context.Context, opts addOptions) error {
	if opts.cow.Path != "" && !opts.config.Shared { // a store that is made changes the image
		if err := a.checkFree(opts.cow.Origin, true); err != nil {
			return report.Name(err, "attach", opts.cow.Origin)
		}
	}
	j, err := opts.job()
	if err != nil {
		return err
	}
	defer j.Close()
	if err := a.load(); err != nil {
		return report.Name(err, "attach", j.Name)
	}
	if err := a.recoverIfWaiting(j); err != nil {
		return report.Name(err, "attach", j.Name)
	}
	if opts.foreground {
		return report.Name(a.become(j), "attach", j.Name)
	}
	signal.Ignore(unix.SIGPIPE) // a caller that does not read the path gets no device
	ctx, stop := interruptible(ctx)
	defer stop()
	pending, err := a.start(ctx, j)
	if err != nil {
		return report.Name(err, "attach", j.Name)
	}
	return report.Name(a.keepOncePrinted(pending, j), "attach", j.Name)
}

// recoverIfWaiting turns the job into a recovery if the requested device exists and waits
// for a server. A service that is restarted repeats its first command, and so gets its
// device back.
func (a *app) recoverIfWaiting(j *daemon.Job) error {
	if j.Config.ID == nil || j.Config.OnCrash == "" || j.Config.OnCrash == loop.CrashFail {
		return nil
	}
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	waits, err := drv.WaitsForServer(j.File, &j.Config)
	if waits {
		j.Recover = j.Config.ID
	}
	return err
}

// keepOncePrinted keeps the device once its path is printed, because the user knows of
// the device then. On any earlier error the device is removed.
func (a *app) keepOncePrinted(pending daemon.Pending, j *daemon.Job) error {
	device, err := pending.Ready()
	if err == nil {
		report.Warnings(a.errOut, j.Name, j.Warnings)
		err = report.Device(a.out, device, j.JSON)
	}
	if err == nil {
		a.nameIfClosed(device)
		err = pending.Keep()
	}
	if err != nil {
		return errors.Join(err, pending.Abandon())
	}
	return nil
}

// job opens the files that the options name. The caller opens them, because a relative
// path refers to its working directory.
func (o *addOptions) job() (*daemon.Job, error) {
	switch {
	case o.verity.RootHash != "":
		return o.verityJob()
	case o.hasTable:
		return o.tableJob()
	}
	file, err := o.open()
	if err != nil {
		return nil, err
	}
	j := &daemon.Job{
		Name: file.Name(), JSON: o.json, Standalone: o.standalone, Autoclear: o.autoclear, Foreground: o.foreground, Root: o.root,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), File: file,
	}
	if j.Key, j.Warnings, err = o.transfer.prepare(file, &o.config); err != nil {
		j.Close()
		return nil, report.Name(err, "attach", j.Name)
	}
	j.Config = o.config
	j.Warnings = append(j.Warnings, o.checksumWarnings(file)...)
	j.Warnings = append(j.Warnings, o.lockWarnings(file, o.config.ReadOnly)...)
	return j, o.openLog(j)
}

// open opens the file that the options name. A server could not open a file without a name
// again, so that its device does not wait for one.
func (o *addOptions) open() (*os.File, error) {
	if !o.hasFD {
		return loop.OpenPath(o.file)
	}
	if err := process.CheckInherited(o.fd); err != nil {
		return nil, fmt.Errorf("attach descriptor %d: %w", o.fd, err)
	}
	file, err := loop.OpenDescriptor(o.fd, o.config.ReadOnly)
	if err != nil {
		return nil, report.Name(err, "attach", fmt.Sprint("descriptor ", o.fd))
	}
	if there, err := os.Stat(file.Name()); o.config.OnCrash == "" && (err != nil || !isSame(there, file)) {
		o.config.OnCrash = loop.CrashFail
	}
	return file, nil
}

func isSame(there os.FileInfo, file *os.File) bool {
	is, err := file.Stat()
	return err == nil && os.SameFile(there, is)
}

// openLog opens the log file of a job, if it has one. After an error it closes the job.
func (o *addOptions) openLog(j *daemon.Job) error {
	if !o.hasLogFile {
		return nil
	}
	err := j.OpenLog(o.logFile)
	if err != nil {
		j.Close()
	}
	return err
}

// checksumWarnings describes the risk of --zero-copy=on over a disk that checks what it
// stores.
func (o *addOptions) checksumWarnings(file *os.File) []string {
	if o.config.ZeroCopy != loop.SwitchOn || o.config.DirectIO == loop.SwitchOff || o.config.ReadOnly {
		return nil
	}
	checksummer, err := loop.Checksummer(file)
	switch {
	case err != nil:
		return []string{err.Error()}
	case checksummer == "":
		return nil
	}
	return []string{fmt.Sprintf("%s may verify checksums: with zero copy, a page that changes while it is written becomes unreadable", checksummer)}
}

// lockWarnings says that another program has a lock on the file, or that a loop device has the
// file. A lock keeps no device from the file, because every user who may read the file can have it.
func (o *addOptions) lockWarnings(file *os.File, readOnly bool) []string {
	if o.config.Shared {
		return nil
	}
	if warnings := report.LoopDevice(file, readOnly); warnings != nil {
		return warnings
	}
	locked, err := loop.LockedByOthers(file, readOnly)
	switch {
	case errors.Is(err, unix.EAGAIN): // of a lease, which add reports
		return nil
	case err != nil:
		return []string{err.Error()}
	case !locked:
		return nil
	}
	return []string{"another program has locked the file, and may write to it"}
}
