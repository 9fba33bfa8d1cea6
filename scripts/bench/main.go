// Command bench compares ublk-loop with the kernel's loop driver and other
// drivers. scripts/bench.sh builds it and runs it where a ublk driver is
// available.
//
//	bench run [flags] >report.json    as root, on a kernel with ublk
//	bench table report.json
//	bench plot report.json DIRECTORY
//	bench check report.json ratios.json
//	bench keep report.json [...] ratios.json
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := execute(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func execute(args []string) error {
	if len(args) > 0 && args[0] == "run" {
		return runCommand(args[1:])
	}
	if len(args) < 2 {
		return fmt.Errorf("usage: bench run [flags], or bench table|plot|check|keep REPORT [...]")
	}
	r, err := readReport(args[1])
	if err != nil {
		return err
	}
	if args[0] == "table" {
		return writeTable(os.Stdout, r)
	}
	if len(args) < 3 {
		return fmt.Errorf("%s: an argument is missing", args[0])
	}
	switch args[0] {
	case "plot":
		files, err := writePlots(r, args[2])
		for _, file := range files {
			fmt.Println(file)
		}
		return err
	case "keep":
		return keep(args[1:len(args)-1], args[len(args)-1])
	case "check":
		stored, err := readRatios(args[2])
		if err != nil {
			return err
		}
		return compare(os.Stdout, r.ratios(), stored)
	}
	return fmt.Errorf("%s: unknown command", args[0])
}

// keep stores the mean ratios of reports.
func keep(files []string, ratios string) error {
	var reports []*Report
	for _, file := range files {
		r, err := readReport(file)
		if err != nil {
			return err
		}
		reports = append(reports, r)
	}
	list, err := mean(reports)
	if err != nil {
		return err
	}
	return writeRatios(ratios, list)
}

func runCommand(args []string) error {
	var b bench
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	flags.StringVar(&b.clock, "clock", clockMachine, "clock of the figures: machine or instructions")
	flags.BoolVar(&b.full, "full", false, "measure the whole matrix")
	flags.BoolVar(&b.check, "check", false, "measure only what bench check compares")
	flags.StringVar(&b.only, "only", "", "measure only one part: cow (copy-on-write), verity (hash trees), attach (and mounts) or create (starts of containers)")
	flags.StringVar(&b.bin, "bin", "ublk-loop", "ublk-loop binary to measure")
	flags.StringVar(&b.kublk, "kublk", "", "the kernel's test server, to compare with")
	flags.StringVar(&b.where, "ext4", "", "an empty disk for an ext4 file system, or a directory on a disk")
	flags.IntVar(&b.queues, "queues", 1, "queues of a device")
	flags.IntVar(&b.depth, "depth", 128, "depth of a queue")
	flags.DurationVar(&b.runtime, "runtime", 500*time.Millisecond, "duration of a job")
	flags.IntVar(&b.times, "attaches", 100, "number of attaches")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if clockNames[b.clock] == "" {
		return fmt.Errorf("clock %q: neither %s nor %s", b.clock, clockMachine, clockInstructions)
	}
	if err := b.run(); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "\t")
	return enc.Encode(&b.report)
}
