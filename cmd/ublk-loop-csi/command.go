package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/driver"
	"github.com/ublk-loop/ublk-loop/internal/bytesize"
)

// errUsage is wrapped by all errors of the command line.
var errUsage = errors.New("see ublk-loop-csi --help")

func usage(err error) error { return fmt.Errorf("%w; %w", err, errUsage) }

// version is set when the program is built.
var version = "unknown"

// step is driver.Options.Step. Tests set it.
var step func(name string)

// options holds the flags of the command line.
type options struct {
	endpoint, pool, reserve string
	ephemeralLimit          string // empty for none
	metrics                 string // address, empty for none
	driver                  driver.Options
}

func newCommand() *cobra.Command {
	o := options{driver: driver.Options{Version: version, Step: step}}
	cmd := &cobra.Command{
		Use:   "ublk-loop-csi",
		Short: "Give the pods of Kubernetes local volumes that are files on their node",
		Long: "Give the pods of Kubernetes local volumes that are files on their node. The driver answers\n" +
			"the calls of the container storage interface for the controller and for the node, and gets\n" +
			"devices from ublk-loop serve on the node.",
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
	flags.StringVar(&o.endpoint, "endpoint", os.Getenv("CSI_ENDPOINT"), "listen at the unix socket `PATH` or unix:PATH (default: $CSI_ENDPOINT)")
	flags.StringVar(&o.pool, "pool", "/var/lib/ublk-loop/csi", "keep volumes and snapshots in `DIRECTORY`, which has the same path on the node")
	flags.StringVar(&o.metrics, "metrics", "", "answer GET /metrics at the TCP `ADDRESS`, for Prometheus (default: off)")
	flags.StringVar(&o.reserve, "reserve", "1G", "leave `BYTES` of the file system of the pool free")
	flags.StringVar(&o.driver.Node, "node", os.Getenv("NODE_NAME"), "`NAME` of this node (default: $NODE_NAME)")
	flags.StringVar(&o.driver.Name, "driver-name", "csi.ublk-loop", "`NAME` of the driver in Kubernetes")
	flags.StringVar(&o.driver.Socket, "socket", client.DefaultSocket, "control socket `PATH` of ublk-loop serve")
	flags.Float64Var(&o.driver.Overcommit, "overcommit", 1, "let thin volumes together be `FACTOR` times as large as the pool's space")
	flags.StringVar(&o.ephemeralLimit, "ephemeral-limit", "", "refuse ephemeral volumes of more than `BYTES` (default: no limit)")
	return cmd
}

// parseSizes sets the options of the driver that are numbers of bytes.
func (o *options) parseSizes() (err error) {
	if o.driver.Reserve, err = sizeFlag("reserve", o.reserve); err != nil || o.ephemeralLimit == "" {
		return err
	}
	o.driver.EphemeralLimit, err = sizeFlag("ephemeral-limit", o.ephemeralLimit)
	if err == nil && o.driver.EphemeralLimit == 0 {
		err = usage(errors.New("--ephemeral-limit 0: no volume has 0 bytes"))
	}
	return err
}

// sizeFlag parses the value of a flag.
func sizeFlag(flag, value string) (int64, error) {
	n, err := bytesize.Parse(value)
	if err == nil && n > 1<<62 {
		err = errors.New("too large")
	}
	if err != nil {
		return 0, usage(fmt.Errorf("--%s %q: %w", flag, value, err))
	}
	return int64(n), nil
}
