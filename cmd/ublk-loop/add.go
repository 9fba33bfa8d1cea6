package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
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

// noTableFlags have no effect on a device of tables.
var noTableFlags = []string{
	"offset", "sizelimit", "sector-size", "transfer", "luks", "key-file", "key-fd", "key-description", "strict-key", "keyfile-offset", "keyfile-size", "header",
	"iv-offset", "iv-large-sectors", "allow-discards",
}

// checkObject records what the device is made of: FILE, --fd or --table. It refuses more than
// one, none, and flags that have no effect on tables.
func (o *addOptions) checkObject(cmd *cobra.Command, args []string) error {
	o.hasTable, o.hasFD = cmd.Flags().Changed("table"), cmd.Flags().Changed("fd")
	if cmd.Flags().Changed("cow") {
		o.hasTable = true
		return o.checkCow(cmd, args)
	}
	switch {
	case o.hasTable && o.hasFD:
		return usage("--table and --fd", "a table names its files itself")
	case o.hasFD && len(args) > 0:
		return usage("--fd and "+args[0], "the descriptor is the file")
	case o.hasFD:
		return nil
	case o.hasTable && len(args) > 0:
		return usage("--table and "+args[0], "a table names its files itself")
	case !o.hasTable && len(args) == 0:
		return report.Usage(errors.New("add: FILE is missing"), helpHint(cmd))
	case !o.hasTable:
		o.file = args[0]
		return nil
	}
	for _, name := range noTableFlags {
		if cmd.Flags().Changed(name) {
			return usage("--"+name, "not with --table")
		}
	}
	return refuseText(o.table)
}

// refuseText refuses the text of a table, which dmsetup(8) takes. The error has no part of it,
// because the text may have a key.
func refuseText(table string) error {
	if _, err := os.Lstat(table); err == nil || !strings.ContainsAny(table, " \t\n") {
		return nil
	}
	return report.Usage(errors.New("--table: the text of a table, not the name of a file"), "--table - reads the table from standard input")
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
	opts.cow.Made = &cowfile.Made{}
	err := a.attach(ctx, &opts)
	if err != nil {
		err = errors.Join(err, a.removeMade(opts.cow.Made))
	}
	return err
}

// removeMade removes a store that was made for a device that does not exist.
func (a *app) removeMade(made *cowfile.Made) error {
	if made.Path() == "" || a.checkFree(made.Path(), false) != nil { // a device waits for its next server
		return nil
	}
	return made.Remove()
}

// attach makes a device that outlives this process, or serves it in the foreground.
func (a *app) attach(ctx context.Context, opts *addOptions) error {
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
		*opts.cow.Made = cowfile.Made{} // a device may have existed, which the user knows of
		return report.Name(a.become(j), "attach", j.Name)
	}
	signal.Ignore(unix.SIGPIPE) // a caller that does not read the path gets no device
	ctx, stop := interruptible(ctx)
	defer stop()
	_, err = a.addDevice(ctx, j, func(device *client.Device) error {
		if err := report.Device(a.out, device, j.JSON); err != nil {
			return err
		}
		a.nameIfClosed(device)
		return nil
	})
	return report.Name(err, "attach", j.Name)
}

// addDevice makes a device that outlives this process. show prints it. Only then the device is kept,
// because the user knows of it. After an error the device is gone.
func (a *app) addDevice(ctx context.Context, j *daemon.Job, show func(*client.Device) error) (*client.Device, error) {
	pending, err := a.start(ctx, j)
	if err != nil {
		return nil, err
	}
	device, err := pending.Ready()
	if err == nil {
		report.Warnings(a.errOut, j.Name, j.Warnings)
		err = show(device)
	}
	if err == nil {
		err = pending.Keep()
	}
	if err != nil {
		return nil, errors.Join(err, pending.Abandon())
	}
	return device, nil
}

// showLater is for addDevice: the caller prints the device.
func showLater(*client.Device) error { return nil }

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
