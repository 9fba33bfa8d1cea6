package main

import (
	"fmt"
	"io"
	"math/bits"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// costs says what a missing feature costs. The program does not use features that have no
// entry.
var costs = map[ublk.Features]string{
	uapi.UBLK_F_SUPPORT_ZERO_COPY:     "the driver copies every byte once more (--zero-copy=on is refused)",
	uapi.UBLK_F_AUTO_BUF_REG:          "with zero copy, two more commands a request",
	uapi.UBLK_F_SAFE_STOP_DEV:         "del looks for users of a device in /proc, and may miss one that comes meanwhile",
	uapi.UBLK_F_NO_AUTO_PART_SCAN:     "a device that the server itself serves cannot be scanned for partitions later (BLKRRPART)",
	uapi.UBLK_F_USER_RECOVERY:         "no device outlives its server (--on-crash=requeue and reissue are refused)",
	uapi.UBLK_F_USER_RECOVERY_REISSUE: "--on-crash=reissue is refused",
	uapi.UBLK_F_USER_COPY:             "with zero copy, a short first write to a chunk of a snapshot is three writes, not one",
	uapi.UBLK_F_QUIESCE:               "serve serves requests itself, with its privileges",
	uapi.UBLK_F_UPDATE_SIZE:           "a device keeps its size (resize is refused)",
	uapi.UBLK_F_CMD_IOCTL_ENCODE:      "nothing works: the commands have other numbers",
}

// featuresOutput is the output of features --json.
type featuresOutput struct {
	Kernel     string          `json:"kernel"`
	Features   string          `json:"features"` // all bits, as a hexadecimal number
	BufferMode string          `json:"buffer_mode"`
	List       []featureOutput `json:"list"`
	Sandbox    []partOutput    `json:"sandbox"`
}

// partOutput is a part of the sandbox of the process that serves requests.
type partOutput struct {
	Name    string `json:"name"`
	Offered bool   `json:"offered"`
	Without string `json:"without"`
}

type featureOutput struct {
	Name    string `json:"name"`
	Bit     int    `json:"bit"`
	Since   string `json:"since"` // "" for a bit that this program does not know
	Offered bool   `json:"offered"`
	Used    bool   `json:"used"`
	Without string `json:"without"` // cost of a missing feature, "" if there is none
}

func newFeaturesCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "features",
		Short: "Show what this kernel offers, and what each missing feature costs",
		Args:  arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			return a.runFeatures(kernelRelease(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) runFeatures(release string, asJSON bool) error {
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	offered, err := drv.Features()
	if err != nil {
		return err
	}
	features := describeFeatures(release, offered)
	for _, p := range a.sandbox() {
		features.Sandbox = append(features.Sandbox, partOutput(p))
	}
	if asJSON {
		return report.JSON(a.out, features)
	}
	return printFeatures(a.out, features)
}

func describeFeatures(release string, offered ublk.Features) featuresOutput {
	out := featuresOutput{
		Kernel: release, Features: fmt.Sprintf("%#x", uint64(offered)), BufferMode: bestMode(offered).String(),
	}
	unknown := offered
	for _, f := range ublk.KnownFeatures {
		cost, used := costs[f.Bit]
		out.List = append(out.List, featureOutput{
			Name: f.Name, Bit: bits.TrailingZeros64(uint64(f.Bit)), Since: f.Since,
			Offered: offered.Has(f.Bit), Used: used, Without: cost,
		})
		unknown &^= f.Bit
	}
	for ; unknown != 0; unknown &= unknown - 1 {
		bit := unknown & -unknown
		out.List = append(out.List, featureOutput{
			Name: bit.String(), Bit: bits.TrailingZeros64(uint64(bit)), Offered: true,
		})
	}
	return out
}

// bestMode returns the buffer mode of --zero-copy=auto.
func bestMode(offered ublk.Features) ublk.BufferMode {
	switch {
	case !offered.Has(uapi.UBLK_F_SUPPORT_ZERO_COPY):
		return ublk.BufferCopy
	case !offered.Has(uapi.UBLK_F_AUTO_BUF_REG):
		return ublk.BufferRegister
	}
	return ublk.BufferAutoRegister
}

func printFeatures(out io.Writer, f featuresOutput) error {
	fmt.Fprintf(out, "kernel %s, features %s, buffer mode %s\n\n", f.Kernel, f.Features, f.BufferMode)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FEATURE\tSINCE\tHERE\tWITHOUT IT")
	for _, feature := range f.List {
		without := "-"
		if feature.Without != "" {
			without = feature.Without
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", feature.Name, report.OrDash(feature.Since), yes(feature.Offered), without)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(table, "\nSANDBOX\tHERE\tWITHOUT IT")
	for _, p := range f.Sandbox {
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.Name, yes(p.Offered), p.Without)
	}
	return table.Flush()
}

// yes returns "yes" or "no".
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
