package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/internal/oci"
)

// errUsage is wrapped by all errors of the command line.
var errUsage = errors.New("see ublk-loop snapshotter --help")

func usage(err error) error { return fmt.Errorf("%w; %w", err, errUsage) }

// options holds the flags of the command line.
type options struct {
	root, address, size, maxSize string
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "snapshotter",
		Short: "Give containerd its snapshots as block devices",
		Long: "Give containerd its snapshots as block devices of ublk-loop serve, as a proxy plugin of\n" +
			"type snapshot. The settings in " + oci.SettingsPath + " name the server's\nsocket and the directories of images.",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usage(err)
			}
			return nil
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), &o) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	cmd.CompletionOptions.DisableDefaultCmd = true
	flags := cmd.Flags()
	flags.StringVar(&o.root, "root", "/var/lib/ublk-loop/snapshotter", "keep all files in `DIRECTORY`")
	flags.StringVar(&o.address, "address", "/run/ublk-loop/snapshotter.sock", "listen at the unix socket `PATH`")
	flags.StringVar(&o.size, "size", "10G", "size of new file systems, in `BYTES`; their files are sparse")
	flags.StringVar(&o.maxSize, "max-size", "", "largest size that "+snapshotter.SizeLabel+" can ask for, in `BYTES` (default: --size)")
	return cmd
}

// sizeFlag parses the value of a flag.
func sizeFlag(flag, value string) (int64, error) {
	n, err := bytesize.Parse(value)
	if err != nil {
		return 0, usage(fmt.Errorf("--%s %q: %w", flag, value, err))
	}
	return int64(n), nil // Parse takes only what fits
}

// sizes returns the values of --size and --max-size.
func (o *options) sizes() (size, maxSize int64, err error) {
	if size, err = sizeFlag("size", o.size); err != nil || o.maxSize == "" {
		return size, size, err
	}
	maxSize, err = sizeFlag("max-size", o.maxSize)
	return size, maxSize, err
}
