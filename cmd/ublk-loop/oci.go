package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// runtimeName returns the name of the runtime that this program stands in for, given the
// program's own name: runc for ublk-runc, runc-trusted for ublk-runc-trusted.
func runtimeName(own string) (name string, standsIn bool) {
	name, ours := strings.CutPrefix(own, "ublk-")
	plain, _, _ := strings.Cut(name, "-")
	return name, ours && (plain == "runc" || plain == "crun")
}

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
	filledVar(cmd.Flags(), &runtime, "runtime", "execute `PROGRAM`: a path such as /usr/bin/runc, or a name in the settings")
	return cmd
}

// becomeRuntime returns only if it fails. It prints the error on one line, because
// engines show only the first or the last line.
func (a *app) becomeRuntime(runtime string, args []string) {
	if err := a.oci(runtime, args); err != nil {
		report.Print(a.errOut, rawname.Error(err), "")
	}
}

// replaceWithRuntime executes a runtime, given by its path or by its name in the
// settings. It returns only an error.
func replaceWithRuntime(runtime string, args []string) error {
	settings, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		return oci.Report(args, err)
	}
	handler := oci.HandlerOCI
	if !strings.Contains(runtime, "/") {
		handler, runtime = runtime, settings.Runtime(runtime)
	}
	w := &oci.Wrapper{Maker: rootMaker(settings, handler), Runtime: runtime}
	return w.Run(args)
}

// rootMaker returns the maker of root directories for the containers of a handler.
func rootMaker(settings *oci.Settings, handler string) oci.Maker {
	return oci.Maker{Settings: settings, Requester: oci.Requester{Handler: handler}}
}
