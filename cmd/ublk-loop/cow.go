package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

func newCowCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cow create|info|diff|merge|thaw FILE",
		Short: "Work on a store of copy-on-write that no device has",
		Long: "Work on a store of copy-on-write: a file or disk with the changes of an image, in the format " +
			"of the kernel's target snapshot. No device is needed.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return report.Usage(errors.New("cow: create, info, diff, merge or thaw is missing"), helpHint(cmd))
			}
			return report.Usage(fmt.Errorf("cow: unknown command %q", args[0]), helpHint(cmd))
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args refuses everything
	}
	cmd.AddCommand(newCowCreateCommand(a), newCowInfoCommand(a), newCowDiffCommand(a), newCowMergeCommand(a), newCowThawCommand(a))
	return cmd
}

func newCowCreateCommand(a *app) *cobra.Command {
	o := cowfile.CreateOptions{}
	cmd := &cobra.Command{
		Use:   "create FILE --origin IMAGE",
		Short: "Make an empty store",
		Long: "Make an empty store, in a new file or on an empty disk. IMAGE then records that the store " +
			"needs it, and is not attached for writing.",
		Args: arguments(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Origin == "" {
				return report.Usage(errors.New("create: --origin is missing"), helpHint(cmd))
			}
			o.Path = args[0]
			err := a.checkFree(o.Origin, true)
			if err == nil {
				err = cowfile.Create(o)
			}
			return report.Name(err, "create", o.Path)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	filledVar(f, &o.Origin, "origin", "the store has changes of `IMAGE`, a file or disk")
	f.Var(parsed(&o.ChunkSize, parseChunk, "BYTES"), "chunk", "size of a chunk, a power of 2 from 4K to 1M (default 64K)")
	f.Var(sizeFlag(&o.Size), "size", "size of a new file (default: enough to change all of IMAGE)")
	return cmd
}

// checkFree returns an error that wraps EBUSY if a device that waits for its next server has the file
// at a path. Such a device has no lock. If the path has no file, the command reports that.
func (a *app) checkFree(path string, readOnly bool) error {
	file, err := loop.OpenPath(path)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer func() { _ = file.Close() }()
	drv, err := a.openDevices()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	return drv.CheckFree(file, readOnly)
}

func newCowMergeCommand(a *app) *cobra.Command {
	o := cowfile.MergeOptions{Verity: refuseTree}
	cmd := &cobra.Command{
		Use:   "merge FILE [--base IMAGE]",
		Short: "Write the changes of a store to its base",
		Long: "Write the changes of a store to its base. The store is empty afterwards. If the command is " +
			"interrupted, the next one continues.",
		Args: arguments(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Path = args[0]
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if err := a.checkFree(o.Path, false); err != nil {
				return report.Name(err, "merge", o.Path)
			}
			merged, err := cowfile.Merge(ctx, o)
			if err != nil {
				return report.Name(err, "merge", o.Path)
			}
			fmt.Fprintf(a.out, "%s merged into %s\n", report.Count(merged.Chunks, "chunk"), report.OneLine(merged.Base))
			return nil
		},
	}
	filledVar(cmd.Flags(), &o.Base, "base", "the base is `IMAGE` (default: the store says where it is)")
	cmd.Flags().BoolVar(&o.Force, "force", false, "merge also into an image with a hash tree of dm-verity, which does not match it then")
	return cmd
}

// refuseTree returns an error that wraps cowfile.ErrVerity for an image with a hash tree.
func refuseTree(image *os.File) error {
	what, err := verityfile.FindTree(image, openBeside)
	if err == nil && what != "" {
		err = hint.Add(fmt.Errorf("%w: %s", cowfile.ErrVerity, what), "with {force} the base is written, and useless with its root hash")
	}
	return err
}

func newCowThawCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "thaw FILE",
		Short: "Allow writes to an image or store that stores need",
		Long: "Allow writes to an image or store whose contents other stores need, and print the UUIDs of " +
			"these stores. They are worthless when something has been written to FILE.",
		Args: arguments(1, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.checkFree(args[0], false); err != nil {
				return report.Name(err, "thaw", args[0])
			}
			removed, err := cowfile.Thaw(args[0])
			for _, u := range removed {
				fmt.Fprintln(a.out, storeName(u))
			}
			return report.Name(err, "thaw", args[0])
		},
	}
}

// storeName returns the UUID of a store, or a word for those that a record has no room for.
func storeName(u snapshot.UUID) string {
	if u.IsZero() {
		return "others"
	}
	return u.String()
}
