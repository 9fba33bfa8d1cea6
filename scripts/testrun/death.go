package main

import (
	"os"
	"regexp"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// death is why a process that runs tests, or its machine, ended too early.
type death struct {
	tooLong bool // it was ended because it took too long
	other   bool // something else went wrong
}

var (
	tooLong = regexp.MustCompile(`^panic: test timed out after |^vm\.sh: error: kernel \S+ did not end within `)
	worse   = regexp.MustCompile(`^panic: |^fatal error: |^vm\.sh: error: |^SIG[A-Z]+: |WARNING: DATA RACE`)
)

func (d *death) output(line string) {
	switch {
	case tooLong.MatchString(line):
		d.tooLong = true
	case worse.MatchString(line):
		d.other = true
	}
}

// isOnlyTime reports whether there was nothing but too little time. A machine
// whose kernel has complained did not end because of that.
func (d *death) isOnlyTime(console string) bool {
	return d.tooLong && !d.other && !complains(console)
}

// complains reports whether the log of a kernel, in a file, has complaints.
func complains(console string) bool {
	text, _ := os.ReadFile(console) // a machine that never started has none
	for line := range strings.Lines(string(text)) {
		if ublktest.IsComplaint(line) || strings.Contains(line, "Kernel panic") {
			return true
		}
	}
	return false
}
