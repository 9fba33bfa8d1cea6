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
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

type addOptions struct {
	file       string
	config     loop.Config
	transfer   transferOptions
	autoclear  time.Duration
	standalone bool
	foreground bool
	json       bool
	logFile    string
	hasLogFile bool // logFile is given
}

func newAddCommand(a *app) *cobra.Command {
	var opts addOptions
	cmd := &cobra.Command{
		Use:   "add FILE",
		Short: "Attach a file, a partition or a disk, and print the path of its device",
		Long: "Attach a file, a partition or a disk. When add returns, the device, whose path it\n" +
			"prints, can be opened; a process in the background serves it until del.",
		Args: arguments(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.file = args[0]
			opts.hasLogFile = cmd.Flags().Changed("log-file")
			if err := opts.checkAutoclear(cmd); err != nil {
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

func (o *addOptions) addFlags(cmd *cobra.Command) {
	f, c := cmd.Flags(), &o.config
	page := uint64(os.Getpagesize())
	f.SortFlags = false
	c.DirectIO, c.ZeroCopy = loop.SwitchAuto, loop.SwitchAuto
	f.VarP(idFlag{&c.ID}, "id", "n", "make /dev/ublkbN (the first free one)")
	f.BoolVarP(&c.ReadOnly, "read-only", "r", false, "make a read-only device, open the file read-only")
	f.VarP(sizeFlag{&c.Offset}, "offset", "o", "start this far into the file")
	f.Var(sizeFlag{&c.SizeLimit}, "sizelimit", "end this far behind the start, if the file does not before (0 for no limit)")
	f.VarP(sectorFlag{&c.SectorSize}, "sector-size", "b", "logical block size: 512, 1024, 2048 or 4096 (a disk's own, for a file 512,\nor 4096 if its partition table is made for that)")
	f.Var(switchFlag{&c.DirectIO}, "direct-io", "bypass the page cache of the file: where that can be had, or\nelse fail, or don't")
	f.BoolVarP(&c.PartScan, "partscan", "P", false, "look for partitions")
	f.VarP(countFlag{&c.Queues, maxQueues}, "queues", "q", "number of queues (one a CPU, which is also the most)")
	f.VarP(countFlag{&c.Depth, maxDepth}, "depth", "d", "requests that a queue takes at once (128, or 64 without zero copy)")
	f.Var(limitedSizeFlag{&c.MaxIOBytes, page, maxIO, page}, "max-io", "size of the largest request (the disk's, or 256K at most without zero copy)")
	f.Var(switchFlag{&c.ZeroCopy}, "zero-copy", "use the pages of the requests themselves: where that can be had, or\nelse fail, or don't")
	o.transfer.addFlags(f, &c.Transfer)
	f.Var(onCrashFlag{&c.OnCrash}, "on-crash", "when the server is killed: remove the disk (fail, the default), or keep it for\nrecover, and fail or repeat the requests that the server had")
	f.BoolVar(&c.Shared, "shared", false, "attach it though another uses it")
	f.DurationVar(&o.autoclear, "autoclear", 0, "remove the device when nobody uses it any more, but not within the first `TIME`,\n10s if it is not given (needs serve)")
	f.Lookup("autoclear").NoOptDefVal, f.Lookup("autoclear").DefValue = "10s", ""
	f.BoolVar(&o.standalone, "standalone", false, "serve in a process of its own, though serve runs (so does --log-file)")
	f.BoolVar(&o.foreground, "foreground", false, "serve in this process, until SIGINT or SIGTERM")
	f.BoolVar(&o.json, "json", false, "print what list --json does, in place of the path")
	f.StringVar(&o.logFile, "log-file", "", "append the server's log to `FILE`, as lines of JSON")
}

// checkAutoclear refuses it where there is no server of many.
func (o *addOptions) checkAutoclear(cmd *cobra.Command) error {
	switch {
	case o.autoclear <= 0 && cmd.Flags().Changed("autoclear"):
		return report.Usage(fmt.Errorf("--autoclear %s: not a time", o.autoclear), helpHint(cmd))
	case o.autoclear > 0 && (o.standalone || o.foreground || o.hasLogFile):
		return report.Usage(errors.New("--autoclear: only serve removes devices, and not with --standalone, --foreground or --log-file"), helpHint(cmd))
	}
	return nil
}

func (a *app) runAdd(ctx context.Context, opts addOptions) error {
	j, err := opts.job()
	if err != nil {
		return err
	}
	defer j.Close()
	if err := a.recoverIfWaiting(j); err != nil {
		return report.Name(err, "attach", j.Name)
	}
	if opts.foreground {
		return report.Name(a.become(j), "attach", j.Name)
	}
	signal.Ignore(unix.SIGPIPE) // who reads no path gets no device
	ctx, stop := interruptible(ctx)
	defer stop()
	pending, err := a.start(ctx, j)
	report.Warnings(a.errOut, j.Name, j.Warnings)
	if err != nil {
		return report.Name(err, "attach", j.Name)
	}
	return report.Name(a.keepOncePrinted(pending, opts.json), "attach", j.Name)
}

// recoverIfWaiting makes the job a recovery, if the device that was asked for is there and
// waits for a server: a service that is started again gives the command that it gave the
// first time.
func (a *app) recoverIfWaiting(j *daemon.Job) error {
	if j.Config.ID == nil || j.Config.OnCrash == "" || j.Config.OnCrash == loop.CrashFail {
		return nil
	}
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	waits, err := drv.Waits(j.File, &j.Config)
	if waits {
		j.Recover = j.Config.ID
	}
	return err
}

// keepOncePrinted keeps a device once it has been printed, because its user knows of it
// then. Otherwise nothing is left of it.
func (a *app) keepOncePrinted(pending daemon.Pending, asJSON bool) error {
	device, err := pending.Ready()
	if err == nil {
		err = report.Device(a.out, device, asJSON)
	}
	if err == nil {
		err = pending.Keep()
	}
	if err != nil {
		return errors.Join(err, pending.Abandon())
	}
	return nil
}

// job opens what the options name. What is wrong with a path is found here,
// where the working directory is the caller's.
func (o *addOptions) job() (*daemon.Job, error) {
	file, err := loop.OpenPath(o.file)
	if err != nil {
		return nil, err
	}
	j := &daemon.Job{
		Name: file.Name(), JSON: o.json, Standalone: o.standalone, Autoclear: o.autoclear, Foreground: o.foreground,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), File: file,
	}
	if j.Key, j.Warnings, err = o.transfer.prepare(file, &o.config); err != nil {
		j.Close()
		return nil, report.Name(err, "attach", j.Name)
	}
	j.Config = o.config
	if o.hasLogFile {
		err = j.OpenLog(o.logFile)
	}
	if err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}
