package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// writeTable prints a report as a table.
func writeTable(w io.Writer, r *Report) error {
	fmt.Fprintf(w, "kernel %s, %d × %s, %s\n", r.Kernel, r.CPUs, r.CPU, r.Time)
	fmt.Fprintf(w, "clock: %s\n\n", clockNames[r.Clock])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, backing := range r.backings() {
		fmt.Fprintf(t, "%s\tclock\tIOPS\tMB/s\tp50 µs\tp99 µs\tp99.9 µs\tCPU µs/IO\tserver µs/IO\tenters/IO\tKiB written/IO\ttree reads\t\n", backing)
		for i := range r.Results {
			x := &r.Results[i]
			if x.Backing != backing {
				continue
			}
			fmt.Fprintf(t, "%s, %s\t%s\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%.2f\t%s\t%s\t%s\t%s\t\n", x.Path, x.Cell, r.Clock, x.IOPS,
				x.BytesPerSecond/1e6, x.LatencyNs.P50/1e3, x.LatencyNs.P99/1e3, x.LatencyNs.P999/1e3,
				x.CPUNs/1e3, orDash(x.ServerNs/1e3), orDash(x.Enters), orDash(x.WrittenPerIO/1024), orDash(float64(x.TreeReads)))
		}
		fmt.Fprintln(t, "\t\t\t\t\t\t\t\t\t\t\t")
	}
	if s := r.StartNs; s.P50 > 0 {
		fmt.Fprintf(t, "ublk-loop version\t%s\tstart and end\tp50 %.2f ms\tp99 %.2f ms\t\t\t\t\t\t\t\n", r.Clock, s.P50/1e6, s.P99/1e6)
	}
	for _, a := range r.Attach {
		fmt.Fprintf(t, "%s, %d times\t%s\tattach\tp50 %.2f ms\tp99 %.2f ms\tdetach\tp50 %.2f ms\tp99 %.2f ms\t\t\t\t\n", a.Path, a.Times, r.Clock,
			a.AttachNs.P50/1e6, a.AttachNs.P99/1e6, a.DetachNs.P50/1e6, a.DetachNs.P99/1e6)
	}
	for _, s := range r.Starts {
		fmt.Fprintf(t, "%s, %d at once, %d times\t%s\tstart\tp50 %.2f ms\tp99 %.2f ms\t\t\t\t\t\t\t\n", s.Path, s.AtOnce, s.Times, r.Clock, s.Ns.P50/1e6, s.Ns.P99/1e6)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if m := r.Memory; m != nil {
		fmt.Fprintf(w, "\nidle device of %d queues × %d: RSS %.1f MiB, PSS %.1f MiB, kernel: slab %.1f MiB, charged to its cgroup %.1f MiB\n",
			m.Queues, m.Depth, mib(m.RSS), mib(m.PSS), mib(m.Slab), mib(m.Kernel))
	}
	return nil
}

var clockNames = map[string]string{
	clockMachine:      "the machine's own",
	clockInstructions: "instructions of one emulated CPU, one a nanosecond (no caches, no parallel CPUs)",
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func orDash(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// backings returns the backings of the results, in their order.
func (r *Report) backings() []string {
	var names []string
	for i := range r.Results {
		if !slices.Contains(names, r.Results[i].Backing) {
			names = append(names, r.Results[i].Backing)
		}
	}
	return names
}
