// Command ublk-loop makes a block device from a file, a partition or a disk, through the
// kernel's ublk driver.
package main

import (
	"os"
	"path/filepath"
	"slices"

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
	if runtime, standsIn := runtimeName(name); standsIn {
		newApp().becomeRuntime(runtime, args)
		return report.ExitFailed
	}
	p := daemon.Program{Version: moduleVersion(), Out: os.Stdout, Err: os.Stderr}
	if status, isRole := p.Run(args); isRole {
		return status
	}
	return newApp().run(args)
}
