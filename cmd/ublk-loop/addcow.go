package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// cowFlag is FILE[,chunk=SIZE][,transient]. The options come last, so that FILE can have
// commas.
type cowFlag struct{ o *cowfile.TableOptions }

// Set implements pflag.Value.
func (f cowFlag) Set(text string) error {
	*f.o = cowfile.TableOptions{}
	for {
		i := strings.LastIndexByte(text, ',')
		if i < 0 {
			break
		}
		known, err := f.option(text[i+1:])
		if err != nil {
			return err
		}
		if !known {
			break
		}
		text = text[:i]
	}
	if f.o.Path = text; text == "" {
		return errors.New("no file")
	}
	return nil
}

// option reads an option, and reports whether it is one.
func (f cowFlag) option(text string) (known bool, err error) {
	if text == "transient" {
		f.o.Transient = true
		return true, nil
	}
	size, known := strings.CutPrefix(text, "chunk=")
	if !known {
		return false, nil
	}
	f.o.ChunkSize, err = parseChunk(size)
	return true, err
}

// String implements pflag.Value.
func (f cowFlag) String() string { return "" }

// Type implements pflag.Value.
func (f cowFlag) Type() string { return "STORE[,chunk=BYTES][,transient]" }

// checkCow refuses flags that have no effect on a snapshot.
func (o *addOptions) checkCow(cmd *cobra.Command, args []string) error {
	switch {
	case o.table != "":
		return usage("--cow and --table", "a table names its stores itself")
	case o.hasFD:
		return usage("--cow and --fd", "a descriptor has no path for the table")
	case len(args) == 0:
		return report.Usage(errors.New("add: FILE is missing"), helpHint(cmd))
	}
	for _, name := range noTableFlags {
		if name != "autoclear" && cmd.Flags().Changed(name) {
			return usage("--"+name, "not with --cow")
		}
	}
	o.file, o.cow.Origin = args[0], args[0]
	return refuseOption(o.cow.Path)
}

// refuseOption refuses a missing store whose name looks like one with an unknown option. The user
// does not expect a file of that name.
func refuseOption(store string) error {
	_, option, found := strings.Cut(filepath.Base(store), ",")
	if _, err := os.Lstat(store); err == nil || !found {
		return nil
	}
	return report.Usage(fmt.Errorf("--cow %s: unknown option %q", store, option), "options are chunk=BYTES and transient; cow create makes a store with a comma in its name")
}

// storeWarnings says that the store is useless, or may have changes of another image.
func (o *addOptions) storeWarnings() []string {
	if o.cow.Path == "" || o.cow.Transient {
		return nil
	}
	if cowfile.IsInvalid(o.cow.Path) {
		return []string{"the changes in " + o.cow.Path + " are lost, and all I/O fails with EIO"}
	}
	if doubt := cowfile.Doubt(o.cow.Origin, o.cow.Path); doubt != "" {
		return []string{doubt}
	}
	return nil
}

// cowTable returns the table of the snapshot, and makes the store if it is missing.
func (o *addOptions) cowTable() (*transfer.Secret, error) {
	text, err := cowfile.Table(o.cow)
	if err != nil {
		return nil, err
	}
	return transfer.ReadSecret(strings.NewReader(text), table.MaxText)
}

// addSnapshot puts a snapshot over the device of an image with a tree.
func (o *addOptions) addSnapshot(j *daemon.Job, image *verityfile.Device) error {
	o.cow.Over, o.cow.OverBytes = "/dev/mapper/base", image.Bytes
	line, err := cowfile.Table(o.cow)
	if err != nil {
		return err
	}
	store, err := loop.OpenPath(o.cow.Path)
	if err != nil {
		return err
	}
	j.Files = append(j.Files, store)
	j.Warnings = append(j.Warnings, o.storeWarnings()...)
	o.config.Table = image.Concise("base") + ";top,,,rw," + table.Escape(strings.TrimSpace(line))
	return nil
}
