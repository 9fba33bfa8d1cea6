package oci

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ublk-loop/ublk-loop/internal/process"
)

// A process that has got the pid of a container's first process is not that process.
func TestProcessRuns(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	start, err := process.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		processText(os.Getpid()):                  true,
		fmt.Sprint(os.Getpid(), " ", start+1):     false,
		fmt.Sprint(os.Getpid()):                   true, // from an earlier version
		processText(ended.Process.Pid):            false,
		fmt.Sprint(ended.Process.Pid, " ", start): false,
		"1": true, // each PID namespace has it
		"":  false, "x": false, "0": false, "-1": false,
	} {
		if is := processRuns(text); is != want {
			t.Errorf("%q runs: %v", text, is)
		}
	}
	if want := fmt.Sprint(os.Getpid(), " ", start); processText(os.Getpid()) != want {
		t.Errorf("this process is %q, want %q", processText(os.Getpid()), want)
	}
}
