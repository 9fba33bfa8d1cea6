package main

import (
	"strings"
	"testing"
)

// Help and completion of something that does not exist are wrong usage, and print nothing that a
// shell would take for a script.
func TestCobraCommands(t *testing.T) {
	b := newBench()
	for line, want := range map[string]string{
		"help bogus":           "help: unknown command \"bogus\"\nhint: see ublk-loop --help",
		"help bogus add":       "help: unknown command \"bogus\"\nhint: see ublk-loop --help",
		"help add bogus":       "help: unknown command \"bogus\"\nhint: see ublk-loop add --help",
		"help cow bogus":       "help: unknown command \"bogus\"\nhint: see ublk-loop cow --help",
		"completion":           "completion: bash, zsh, fish or powershell is missing\nhint: see ublk-loop completion --help",
		"completion tcsh":      "completion: unknown shell \"tcsh\"\nhint: see ublk-loop completion --help",
		"completion bash more": "bash: unexpected argument \"more\"\nhint: see ublk-loop completion bash --help",
	} {
		b.check(t, strings.Fields(line), 2, "", "ublk-loop: error: "+want+"\n")
	}
	for line, want := range map[string]string{
		"help": "Available Commands:", "help cow create": "Make an empty store", "completion --help": "Available Commands:", "completion bash": "__start_ublk-loop", "completion fish": "complete -c ublk-loop",
	} {
		b.out.Reset()
		if status := b.run(strings.Fields(line)); status != 0 || !strings.Contains(b.out.String(), want) {
			t.Errorf("%s: exit status %d, output %q lacks %q", line, status, &b.out, want)
		}
	}
}
