package main

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	var out strings.Builder
	if err := runVersion(&out, "v1.2.3", "7.3.4"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("ublk-loop v1.2.3\n%s %s/%s\nLinux 7.3.4\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
	if moduleVersion() == "" || kernelRelease() == "" {
		t.Errorf("version %q, kernel %q", moduleVersion(), kernelRelease())
	}
}

// --version prints what the command version prints.
func TestVersionFlag(t *testing.T) {
	want := fmt.Sprintf("ublk-loop %s\n%s %s/%s\nLinux %s\n", moduleVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernelRelease())
	b := newBench()
	b.check(t, []string{"version"}, 0, want, "")
	b.check(t, []string{"--version"}, 0, want, "")
}
