package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// noTableFlags have no effect on a device of tables. --on-crash and --autoclear are not
// served for it yet.
var noTableFlags = []string{
	"offset", "sizelimit", "sector-size", "transfer", "luks", "key-file", "key-fd", "key-description", "strict-key",
	"iv-offset", "iv-large-sectors", "allow-discards", "on-crash", "autoclear",
}

// checkObject records what the device is made of: FILE or --table. It refuses both, neither,
// and flags that have no effect on tables.
func (o *addOptions) checkObject(cmd *cobra.Command, args []string) error {
	o.hasTable = cmd.Flags().Changed("table")
	switch {
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
	return nil
}

// tableJob reads the table and opens the files and disks that it names. A server of many
// devices serves no tables, so the device has a process of its own.
func (o *addOptions) tableJob() (*daemon.Job, error) {
	name := o.table
	if name == "-" {
		name = "standard input"
	}
	name = "table of " + name
	j := &daemon.Job{
		Name: name, JSON: o.json, Standalone: true, Foreground: o.foreground, NotifySocket: os.Getenv("NOTIFY_SOCKET"), Config: o.config,
	}
	err := o.openTable(j)
	if err != nil {
		j.Close()
		return nil, report.Name(err, "attach", name)
	}
	return j, o.openLog(j)
}

func (o *addOptions) openTable(j *daemon.Job) error {
	text, err := o.readTable()
	if err != nil {
		return err
	}
	tables, err := loop.ParseTable(text)
	if err != nil {
		return err
	}
	defer tables.Close()
	j.Config.Table = tables.Text()
	for i, device := range tables.Devices() {
		file, err := loop.OpenTableDevice(device)
		if err != nil {
			return tables.InDevice(i, err)
		}
		j.Files = append(j.Files, file)
		j.Warnings = append(j.Warnings, o.checksumWarnings(file)...)
		j.Warnings = append(j.Warnings, o.lockWarnings(file)...)
	}
	return nil
}

// readTable reads the text of --table. It reads one byte more than a table can have, so that
// a longer one is refused.
func (o *addOptions) readTable() ([]byte, error) {
	in := os.Stdin
	if o.table != "-" {
		var err error
		if in, err = os.Open(o.table); err != nil {
			return nil, err
		}
		defer func() { _ = in.Close() }()
	}
	text, err := io.ReadAll(io.LimitReader(in, table.MaxText+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return text, nil
}
