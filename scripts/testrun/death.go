package main

import (
	"os"
	"regexp"
	"strings"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// death describes why a process with tests, or its machine, ended too early.
type death struct {
	tooLong bool // a time limit ended it
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
	case isCrash(line):
		d.other = true
	}
}

// isCrash reports whether a line says that a process or its machine ended for another
// reason than a time limit, or had a data race.
func isCrash(line string) bool { return worse.MatchString(line) && !tooLong.MatchString(line) }

func hasCrash(text string) bool {
	for line := range strings.Lines(text) {
		if isCrash(line) {
			return true
		}
	}
	return false
}

// isOnlyTime reports whether a time limit is the only reason. If the kernel printed a
// complaint, the complaint may be the reason.
func (d *death) isOnlyTime(console string) bool {
	return d.tooLong && !d.other && !complains(console)
}

// complains reports whether a file with the log of a kernel contains complaints.
func complains(console string) bool { return complaint(console) != "" }

// complaint returns the first complaint in a file with the log of a kernel, or "".
func complaint(console string) string {
	text, _ := os.ReadFile(console) // a machine that never started has no log
	for line := range strings.Lines(string(text)) {
		if ublktest.IsComplaint(line) || strings.Contains(line, "Kernel panic") {
			return line
		}
	}
	return ""
}
