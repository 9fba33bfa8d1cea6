package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

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
