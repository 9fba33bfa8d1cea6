package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/confine"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// job opens the files that the options name. The caller opens them, because a relative
// path refers to its working directory.
func (o *addOptions) job() (*daemon.Job, error) {
	j := &daemon.Job{
		JSON: o.json, Standalone: o.standalone, Autoclear: o.autoclear, Foreground: o.foreground, Root: o.root,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"),
	}
	open := o.openFile
	switch {
	case o.verity.RootHash != "":
		open = o.openVerity
	case o.hasTable:
		open = o.openTable
	}
	if err := open(j); err != nil {
		j.Close()
		return nil, report.Name(err, "attach", j.Name)
	}
	j.Config = o.config
	if o.hasLogFile {
		if err := j.OpenLog(o.logFile); err != nil {
			j.Close()
			return nil, err
		}
	}
	return j, nil
}

// openFile opens the file for a job, and reads its key.
func (o *addOptions) openFile(j *daemon.Job) (err error) {
	if j.File, err = o.open(); err != nil {
		return err
	}
	j.Name = j.File.Name()
	if j.Key, j.Warnings, err = o.transfer.prepare(j.File, &o.config); err != nil {
		return err
	}
	j.Warnings = append(j.Warnings, o.checksumWarnings(j.File)...)
	j.Warnings = append(j.Warnings, o.lockWarnings(j.File, o.config.ReadOnly)...)
	return nil
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

// openTable reads the table for a job, and opens the files and disks that it names.
func (o *addOptions) openTable(j *daemon.Job) error {
	j.Name = "table of " + o.table
	switch {
	case o.cow.Path != "":
		j.Name = o.cow.Origin
	case o.table == "-":
		j.Name = "table of standard input"
	}
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
	o.config.Table = tables.Text()
	j.Warnings = append(j.Warnings, o.storeWarnings()...)
	written := loop.TableWrites(tables, o.config.ReadOnly)
	for i, device := range tables.Devices() {
		file, err := loop.OpenTableDevice(device)
		if err != nil {
			return tables.InDevice(i, err)
		}
		j.Files = append(j.Files, file)
		if written[i] {
			j.Warnings = append(j.Warnings, o.checksumWarnings(file)...)
		}
		j.Warnings = append(j.Warnings, o.lockWarnings(file, !written[i])...)
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
