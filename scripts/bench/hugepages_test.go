package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestWithoutHugePages(t *testing.T) {
	enabled := func() string {
		out, err := exec.Command("grep", "THP_enabled", "/proc/self/status").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))[1]
	}
	if enabled() != "1" {
		t.Skip("programs started here get no huge pages in any case")
	}
	var within string
	err := withoutHugePages(func() error { within = enabled(); return nil })
	if err != nil || within != "0" || enabled() != "1" {
		t.Errorf("within: %s, after: %s, error %v; want 0, 1 and none", within, enabled(), err)
	}
}
