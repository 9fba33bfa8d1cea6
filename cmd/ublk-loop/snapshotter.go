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

// snapshotterProgram is a separate program, because containerd's modules would double the
// size of this one.
const snapshotterProgram = "ublk-loop-snapshotter"

func newSnapshotterCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshotter [flags]",
		Short: "Provide containerd with snapshots on block devices",
		Long: "Provide containerd with snapshots on block devices of ublk-loop serve.\n" +
			"This executes the program " + snapshotterProgram + ", which is installed separately " +
			"and describes its own flags.",
		DisableFlagParsing: true, // the flags belong to the executed program
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.snapshotter(args)
			if errors.Is(err, unix.ENOENT) && asksForHelp(args) {
				return cmd.Help() // the program that describes its flags is not installed
			}
			return err
		},
	}
}

func asksForHelp(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool { return arg == "--help" || arg == "-h" || arg == "help" })
}

// replaceWithSnapshotter executes the snapshotter. It returns only an error.
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

// findSnapshotter looks for the snapshotter in this program's directory, and in the
// directories for programs that users do not call. It returns an error that wraps ENOENT
// if the snapshotter is not installed.
func findSnapshotter(dir string) (string, error) {
	dirs := slices.Compact([]string{dir, filepath.Join(dir, "../libexec/ublk-loop"), "/usr/libexec/ublk-loop"})
	for _, dir := range dirs {
		program := filepath.Join(dir, snapshotterProgram)
		err := unix.Access(program, unix.X_OK)
		if err == nil {
			return program, nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return "", &os.PathError{Op: "execute", Path: program, Err: err}
		}
	}
	return "", &hint.Error{
		Err:  fmt.Errorf("find %s in %s: %w", snapshotterProgram, strings.Join(dirs, ", "), unix.ENOENT),
		Hint: "it is a separate program: install the package " + snapshotterProgram + ", or run make install-snapshotter",
	}
}
