package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

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

// tableJob reads the table and opens the files and disks that it names.
func (o *addOptions) tableJob() (*daemon.Job, error) {
	name := "table of " + o.table
	switch {
	case o.cow.Path != "":
		name = o.cow.Origin
	case o.table == "-":
		name = "table of standard input"
	}
	j := &daemon.Job{
		Name: name, JSON: o.json, Standalone: o.standalone, Autoclear: o.autoclear, Foreground: o.foreground, Root: o.root,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), Config: o.config,
	}
	err := o.openTable(j)
	if err != nil {
		j.Close()
		return nil, report.Name(err, "attach", name)
	}
	return j, o.openLog(j)
}

func (o *addOptions) openTable(j *daemon.Job) error {
	if err := confine.ForbidDumps(); err != nil { // the text may have a key
		return err
	}
	text, exposed, err := o.readTable()
	if err != nil {
		return err
	}
	defer text.Close()
	tables, err := loop.ParseTable(text.Bytes())
	if err != nil {
		return err
	}
	defer tables.Close()
	if tables.HasKeys() && exposed != "" {
		j.Warnings = append(j.Warnings, fmt.Sprintf("table with a key in %s: %s", o.table, exposed))
	}
	j.Config.Table = tables.Text()
	j.Warnings = append(j.Warnings, o.storeWarnings()...)
	for i, device := range tables.Devices() {
		file, err := loop.OpenTableDevice(device)
		if err != nil {
			return tables.InDevice(i, err)
		}
		j.Files = append(j.Files, file)
		j.Warnings = append(j.Warnings, o.checksumWarnings(file)...)
		isOrigin := o.cow.Path != "" && i == 0 // which is only read
		j.Warnings = append(j.Warnings, o.lockWarnings(file, o.config.ReadOnly || isOrigin)...)
	}
	return pipeKeys(j, tables)
}

// pipeKeys gives the keys of the tables to the job, if they have any.
func pipeKeys(j *daemon.Job, tables *table.Stack) error {
	keys, err := keysource.TableKeys(tables)
	if keys == nil || err != nil {
		return err
	}
	j.Key, _, err = keysource.Pipe(context.Background(), func(context.Context) (*transfer.Secret, []string, error) { return keys, nil, nil })
	return err
}

// recoverTableJob opens the files and disks of a device of tables by their paths, and reads
// the keys that its tables name. The server checks that they are the same.
func recoverTableJob(device client.Device, opts recoverOptions) (*daemon.Job, error) {
	if opts.keys.source.IsGiven() {
		err := fmt.Errorf("a key for a device of tables: %w", errors.ErrUnsupported)
		return nil, &hint.Error{Err: err, Hint: "add the key to a keyring, under the name that list --dm-table shows"}
	}
	j := &daemon.Job{Name: "tables of " + device.Device, Recover: &device.ID, Standalone: true, Config: loop.Config{Table: device.Table}}
	err := openRecovered(j, device)
	if err == nil && opts.hasLogFile {
		err = j.OpenLog(opts.logFile)
	}
	if err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

func openRecovered(j *daemon.Job, device client.Device) error {
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

// readTable reads the text of --table, which may contain keys. exposed says why other users
// can read it, or is empty.
func (o *addOptions) readTable() (text *transfer.Secret, exposed string, err error) {
	if o.cow.Path != "" {
		text, err = o.cowTable()
		return text, "", err
	}
	in := os.Stdin
	if o.table != "-" {
		if in, err = os.Open(o.table); err != nil {
			return nil, "", err
		}
		defer func() { _ = in.Close() }()
		if exposed, err = keysource.OthersCanRead(in); err != nil {
			return nil, "", err
		}
	}
	text, err = transfer.ReadSecret(in, table.MaxText)
	switch {
	case errors.Is(err, transfer.ErrTooLong):
		return nil, "", fmt.Errorf("text longer than %d bytes: %w", table.MaxText, table.ErrLimit)
	case err != nil:
		return nil, "", fmt.Errorf("read: %w", err)
	}
	return text, exposed, nil
}
