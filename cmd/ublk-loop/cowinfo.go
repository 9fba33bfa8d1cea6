package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
)

// cowInfo is the JSON of cow info. docs/json.md describes it.
type cowInfo struct {
	File        string   `json:"file"`
	FileBytes   []byte   `json:"file_bytes,omitempty"`
	Valid       bool     `json:"valid"`
	ChunkSize   uint32   `json:"chunk_size"`
	Chunks      uint64   `json:"chunks"`
	Allocated   uint64   `json:"allocated_bytes"`
	Size        uint64   `json:"size"`
	Metadata    uint64   `json:"metadata_bytes"`
	UUID        string   `json:"uuid,omitempty"`
	Frozen      bool     `json:"frozen"`
	Verity      bool     `json:"verity"`
	Origin      string   `json:"origin,omitempty"`
	OriginBytes []byte   `json:"origin_bytes,omitempty"`
	OriginSize  uint64   `json:"origin_size,omitempty"`
	OriginUUID  string   `json:"origin_uuid,omitempty"`
	NeededBy    []string `json:"needed_by"`
}

func newCowInfoCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "Describe a store: size, use, origin",
		Args:  arguments(1, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := cowfile.Inspect(args[0])
			if err != nil {
				return report.Name(err, "info", args[0])
			}
			if asJSON {
				return report.JSON(a.out, cowInfoOf(info))
			}
			return a.printCowInfo(cowInfoOf(info))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func cowInfoOf(info *cowfile.Info) *cowInfo {
	const sector = 512
	u := info.Usage
	c := &cowInfo{
		File: info.Path, FileBytes: rawname.Bytes(info.Path), Valid: info.Valid, ChunkSize: info.ChunkSize, Chunks: info.Chunks,
		Allocated: u.Allocated * sector, Size: u.Total * sector, Metadata: u.Metadata * sector, NeededBy: []string{},
	}
	if l := info.Label; l != nil {
		c.UUID, c.Frozen, c.Verity, c.Origin, c.OriginSize = l.UUID.String(), l.Frozen, l.Verity, l.OriginPath, l.OriginSize
		c.OriginBytes = rawname.Bytes(l.OriginPath)
		if !l.Parent.IsZero() {
			c.OriginUUID = l.Parent.String()
		}
	}
	for _, s := range info.NeededBy {
		c.NeededBy = append(c.NeededBy, storeName(s))
	}
	return c
}

// printCowInfo prints a line for each property that the store has.
func (a *app) printCowInfo(c *cowInfo) error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s:\t%s\n", name, report.OneLine(fmt.Sprintf(format, args...)))
	}
	line("File", "%s", c.File)
	switch {
	case !c.Valid:
		line("State", "invalid, the changes are lost")
	case c.Frozen || len(c.NeededBy) > 0:
		line("State", "frozen, other stores need it")
	default:
		line("State", "valid")
	}
	line("Chunk size", "%s", bytesize.Format(uint64(c.ChunkSize)))
	line("Changed chunks", "%d", c.Chunks)
	line("Allocated", "%d of %d bytes (%.1f %%)", c.Allocated, c.Size, 100*float64(c.Allocated)/float64(c.Size))
	line("Metadata", "%d bytes", c.Metadata)
	if c.UUID != "" {
		line("UUID", "%s", c.UUID)
		line("Origin", "%s", c.Origin)
		line("Origin size", "%d bytes", c.OriginSize)
	}
	if c.Verity {
		line("Verity", "the origin is checked, so the changes are not merged into it")
	}
	if c.OriginUUID != "" {
		line("Origin UUID", "%s", c.OriginUUID)
	}
	for _, s := range c.NeededBy {
		line("Needed by", "%s", s)
	}
	return table.Flush()
}

// cowDiff is the JSON of cow diff. docs/json.md describes it.
type cowDiff struct {
	ChunkSize  uint32     `json:"chunk_size"`
	OriginSize uint64     `json:"origin_size,omitempty"`
	Changed    []cowRange `json:"changed"`
}

type cowRange struct {
	Offset uint64 `json:"offset"`
	Length uint64 `json:"length"`
}

func newCowDiffCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff FILE",
		Short: "Print the ranges that a store changes, as JSON",
		Args:  arguments(1, 1, "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.checkFree(args[0], true); err != nil {
				return report.Name(err, "diff", args[0])
			}
			changes, err := cowfile.Diff(args[0])
			if err != nil {
				return report.Name(err, "diff", args[0])
			}
			d := cowDiff{changes.ChunkSize, changes.OriginSize, []cowRange{}}
			for _, r := range changes.Ranges {
				d.Changed = append(d.Changed, cowRange(r))
			}
			return report.JSON(a.out, d)
		},
	}
}
