package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

type recoverOptions struct {
	targets    []string
	keys       keyFlags
	logFile    string
	hasLogFile bool // --log-file is given
}

func newRecoverCommand(a *app) *cobra.Command {
	var opts recoverOptions
	cmd := &cobra.Command{
		Use:   "recover [DEVICE|ID|FILE...]",
		Short: "Start new servers for devices whose servers were killed",
		Long: "Start a new server for each device that was added with --on-crash=requeue or " +
			"reissue and has lost its server. The I/O that waits for it continues.",
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.targets = args
			opts.hasLogFile = cmd.Flags().Changed("log-file")
			if err := opts.checkKeys(cmd); err != nil {
				return err
			}
			return a.runRecover(cmd.Context(), opts)
		},
	}
	filledVar(cmd.Flags(), &opts.logFile, "log-file", "append the logs of the new servers to `FILE`, as JSON lines")
	opts.keys.addFlags(cmd.Flags())
	return cmd
}

// checkKeys refuses a key for more than one device.
func (o *recoverOptions) checkKeys(cmd *cobra.Command) error {
	if err := o.keys.check(cmd); err != nil {
		return err
	}
	if o.keys.source.IsGiven() && len(o.targets) != 1 {
		return report.Usage(errors.New("key options need exactly one device"), helpHint(cmd))
	}
	return nil
}

// runRecover recovers the named devices, or each device that waits for a server. It
// reports each result.
func (a *app) runRecover(ctx context.Context, opts recoverOptions) error {
	drv, err := a.openDevices()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	ctx, stop := interruptible(ctx)
	defer stop()
	failed := false
	try := func(err error) {
		if err != nil {
			a.report(err)
			failed = true
		}
	}
	devices, err := drv.List()
	if err != nil {
		return err
	}
	for _, device := range opts.devices(drv, devices, try) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		try(report.Name(a.recover(ctx, device, opts), "recover", device.Device))
	}
	if failed {
		return report.ErrReported
	}
	return nil
}

// devices returns the devices to recover. It passes the error of each target that it
// cannot find to try.
func (o *recoverOptions) devices(drv driver, devices []client.Device, try func(error)) []client.Device {
	byID := map[uint32]client.Device{}
	var wanted []client.Device
	for i := range devices {
		byID[devices[i].ID] = devices[i]
		if len(o.targets) == 0 && devices[i].State == ublk.StateQuiesced.String() {
			wanted = append(wanted, devices[i])
		}
	}
	for _, arg := range o.targets {
		targets, err := targetsOf(drv, arg)
		try(report.Name(err, "recover", arg))
		for _, t := range targets {
			device, found := byID[t.id]
			if !found {
				try(fmt.Errorf("recover %s: no such device of ublk-loop", ublk.BlockPath(t.id)))
				continue
			}
			wanted = append(wanted, device)
		}
	}
	return wanted
}

// recover starts a server for the device, and waits until I/O continues.
func (a *app) recover(ctx context.Context, device client.Device, opts recoverOptions) error {
	j, err := recoverJob(ctx, device, opts)
	if err != nil {
		return err
	}
	defer j.Close()
	pending, err := a.start(ctx, j)
	if err != nil {
		return err
	}
	served, err := pending.Ready()
	if errors.Is(err, report.ErrInterrupted) {
		err = hint.Add(fmt.Errorf("%w: the new server goes on by itself", err), "see list for whether it has the device")
	}
	if err != nil {
		return errors.Join(err, pending.Abandon())
	}
	report.Warnings(a.errOut, device.Device, j.Warnings)
	fmt.Fprintf(a.out, "%s: recovered, served by process %d\n", served.Device, served.PID)
	return pending.Keep()
}

// recoverJob opens the files of the device by their paths. The server checks that the paths still
// lead to the same files.
func recoverJob(ctx context.Context, device client.Device, opts recoverOptions) (*daemon.Job, error) {
	j := &daemon.Job{Recover: &device.ID}
	var err error
	if device.Table != "" {
		err = opts.openTables(j, &device)
	} else {
		err = opts.openFile(ctx, j, &device)
	}
	if err == nil && opts.hasLogFile {
		err = j.OpenLog(opts.logFile)
	}
	if err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// openFile opens the file of a device for a job, and reads its key.
func (o *recoverOptions) openFile(ctx context.Context, j *daemon.Job, device *client.Device) (err error) {
	if device.File == "" {
		err := fmt.Errorf("its file is unknown: %w", ublk.ErrNotRecoverable)
		return &hint.Error{Err: err, Hint: "remove it with del"}
	}
	if j.File, err = loop.OpenPath(device.File); err != nil {
		return err
	}
	j.Name = j.File.Name()
	j.Key, j.Warnings, err = o.key(ctx, j.File, &device.Transfer)
	return err
}

// key returns a descriptor to read the key of the device's transfer from, or nil without
// a key, and warnings.
func (o *recoverOptions) key(ctx context.Context, file *os.File, c *client.Transfer) (*os.File, []string, error) {
	switch {
	case c.LUKS != 0:
		volume := &loop.Config{Offset: c.LUKSOffset}
		return keysource.Pipe(ctx, func(ctx context.Context) (*transfer.Secret, []string, error) {
			return o.keys.source.Unlock(ctx, file, volume)
		})
	case !o.keys.source.IsGiven():
		return nil, nil, nil // the server reports a missing key
	}
	return keysource.Pipe(ctx, o.keys.source.Key)
}

// openTables opens the files and disks of a device of tables for a job, and reads the keys that its
// tables name.
func (o *recoverOptions) openTables(j *daemon.Job, device *client.Device) error {
	if o.keys.source.IsGiven() {
		err := fmt.Errorf("a key for a device of tables: %w", errors.ErrUnsupported)
		return &hint.Error{Err: err, Hint: "add the key to a keyring, under the name that list --dm-table shows"}
	}
	j.Name, j.Config.Table = "tables of "+device.Device, device.Table
	tables, err := loop.ParseTable([]byte(device.Table))
	if err != nil {
		return err
	}
	defer tables.Close()
	for _, f := range device.Files {
		file, err := loop.OpenPath(f.File)
		if err != nil {
			return err
		}
		j.Files = append(j.Files, file)
	}
	return pipeKeys(j, tables)
}
