package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// runtimeNames maps the names of this program to the runtimes that it stands in for.
var runtimeNames = map[string]string{"ublk-runc": "runc", "ublk-crun": "crun"}

func newOCICommand(a *app) *cobra.Command {
	var runtime string
	cmd := &cobra.Command{
		Use:   "oci --runtime PROGRAM -- ARGUMENTS...",
		Short: "Execute a container runtime, with a root from an image if the bundle asks for one",
		Long: "Execute a container runtime, with a root from an image if the bundle asks for one.\n" +
			"Called as ublk-runc or ublk-crun, this program executes that runtime of " + oci.SettingsPath + ".",
		Args: func(cmd *cobra.Command, args []string) error {
			if runtime == "" {
				return report.Usage(fmt.Errorf("%s: --runtime is missing", cmd.Name()), helpHint(cmd))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			a.becomeRuntime(runtime, args)
			return report.ErrReported
		},
	}
	cmd.Flags().StringVar(&runtime, "runtime", "", "execute `PROGRAM`: a path such as /usr/bin/runc, or a name in the settings")
	return cmd
}

// becomeRuntime returns only if it fails. It prints the error on one line, because
// engines show only the first or the last line.
func (a *app) becomeRuntime(runtime string, args []string) {
	if err := a.oci(runtime, args); err != nil {
		report.Print(a.errOut, err.Error(), "")
	}
}

// replaceWithRuntime executes a runtime, given by its path or by its name in the
// settings. It returns only an error.
func replaceWithRuntime(runtime string, args []string) error {
	settings, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		return oci.Reword(err)
	}
	if !strings.Contains(runtime, "/") {
		runtime = settings.Runtime(runtime)
	}
	w := &oci.Wrapper{Maker: rootMaker(settings), Runtime: runtime}
	return w.Run(args)
}

// rootMaker returns the maker of root directories for these settings.
func rootMaker(settings *oci.Settings) oci.Maker {
	return oci.Maker{Settings: settings}
}
