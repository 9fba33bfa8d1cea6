// Command ublk-loop makes a block device from a file, a partition or a disk, through the
// kernel's ublk driver.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/mounthelper"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

func main() {
	os.Exit(run(filepath.Base(os.Args[0]), os.Args[1:]))
}

// run carries out the command line and returns the exit status. The name of the program
// selects the role.
func run(name string, args []string) int {
	if name == mounthelper.Name {
		return newApp().mountMain(args)
	}
	if slices.Contains(losetupNames, name) {
		return newApp().losetup(name, args)
	}
	if oci, standsIn := runtimeName(name); standsIn {
		newApp().becomeRuntime(oci, args)
		return report.ExitFailed
	}
	p := daemon.Program{Version: moduleVersion(), Out: os.Stdout, Err: os.Stderr}
	if status, isRole := p.Run(args); isRole {
		return status
	}
	return newApp().run(args)
}

// mountMain is the helper of mount(8).
func (a *app) mountMain(args []string) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	h := mounthelper.Helper{Client: client.New(client.DefaultSocket), Find: a.find, NoServer: daemon.HintStartServe, Err: a.errOut}
	return h.Run(ctx, args)
}

// version is set by the linker (-X main.version=…). Builds without the option have the
// version of the module.
var version string

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the Go version, and the kernel",
		Args:  arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			return runVersion(a.out, moduleVersion(), kernelRelease())
		},
	}
}

func runVersion(out io.Writer, module, release string) error {
	_, err := fmt.Fprintf(out, "ublk-loop %s\n%s %s/%s\nLinux %s\n",
		module, runtime.Version(), runtime.GOOS, runtime.GOARCH, release)
	return err
}

func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case version != "":
		return version
	case ok && info.Main.Version != "":
		return info.Main.Version
	}
	return "(devel)"
}

// kernelRelease returns what uname -r prints.
func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(name.Release[:])
}
