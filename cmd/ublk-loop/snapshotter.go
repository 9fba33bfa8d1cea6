package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// snapshotterProgram is a program of its own: containerd's modules would make
// this one twice as large.
const snapshotterProgram = "ublk-loop-snapshotter"

func newSnapshotterCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshotter [flags]",
		Short: "Provide containerd with snapshots on block devices",
		Long: "Provide containerd with snapshots on block devices of ublk-loop serve.\n" +
			"This executes the program " + snapshotterProgram + ", which is installed separately\n" +
			"and describes its own flags.",
		DisableFlagParsing: true, // that program has them
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.snapshotter(args)
			if errors.Is(err, unix.ENOENT) && asksForHelp(args) {
				return cmd.Help() // the program that has the rest of it is not installed
			}
			return err
		},
	}
}

func asksForHelp(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == "--help" || arg == "-h" || arg == "help" })
}

// replaceWithSnapshotter executes the snapshotter. It returns only if that
// fails.
func replaceWithSnapshotter(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find %s: %w", snapshotterProgram, err)
	}
	program, err := findSnapshotter(filepath.Dir(self))
	if err != nil {
		return err
	}
	return &os.PathError{Op: "execute", Path: program, Err: unix.Exec(program, append([]string{snapshotterProgram}, args...), os.Environ())}
}

// findSnapshotter looks for the snapshotter where this program is, and where
// programs are that only others call. It returns an error that wraps ENOENT
// where it is not installed.
func findSnapshotter(dir string) (string, error) {
	places := []string{dir, filepath.Join(dir, "../libexec/ublk-loop"), "/usr/libexec/ublk-loop"}
	for _, place := range places {
		program := filepath.Join(place, snapshotterProgram)
		err := unix.Access(program, unix.X_OK)
		if err == nil {
			return program, nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return "", &os.PathError{Op: "execute", Path: program, Err: err}
		}
	}
	return "", &hint.Error{
		Err:  fmt.Errorf("find %s in %s: %w", snapshotterProgram, strings.Join(places, ", "), unix.ENOENT),
		Hint: "it is installed by itself: make build-snapshotter, and install bin/" + snapshotterProgram + " there",
	}
}
