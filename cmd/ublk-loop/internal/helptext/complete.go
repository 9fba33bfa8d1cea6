package helptext

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Completion prepares the command and those below it for the completion of a command
// line: the texts of flags are one line without marks, flags have the values that the names of
// their values list, and arguments called DEVICE are the devices in a directory.
func Completion(cmd *cobra.Command, devices string) {
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		name, text := pflag.UnquoteUsage(flag)
		flag.Usage = strings.ReplaceAll(text, "\n", " ")
		if complete := completeValue(name); complete != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag.Name, complete) // fails only if it is registered already
		}
	})
	if strings.Contains(cmd.Use, "DEVICE") {
		cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return disks(devices), cobra.ShellCompDirectiveDefault
		}
	}
	for _, sub := range cmd.Commands() {
		Completion(sub, devices)
	}
}

// noFiles are the names of values that are not files.
var noFiles = []string{"BYTES", "N", "TIME", "SECTORS", "TEXT", "UUID", "HOST:PORT", "HEX|-"}

// completeValue returns the completion of a value with the given name. It returns nil if
// the value can be a file.
func completeValue(name string) cobra.CompletionFunc {
	switch {
	case slices.Contains(noFiles, name):
		return cobra.NoFileCompletions
	case strings.Contains(name, "|") && name == strings.ToLower(name):
		return cobra.FixedCompletions(strings.Split(name, "|"), cobra.ShellCompDirectiveNoFileComp)
	}
	return nil
}

// disks returns the paths of the disks of ublk in a directory, without partitions.
func disks(directory string) []string {
	paths, _ := filepath.Glob(filepath.Join(directory, "ublkb*")) // the pattern is valid
	return slices.DeleteFunc(paths, func(path string) bool {
		return strings.Contains(strings.TrimPrefix(filepath.Base(path), "ublkb"), "p")
	})
}
