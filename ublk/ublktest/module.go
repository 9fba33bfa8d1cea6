package ublktest

import (
	"os/exec"
	"testing"
)

// NeedsModule skips a test if the kernel lacks a module. A full run fails if no kernel has it.
func NeedsModule(t testing.TB, module string) {
	t.Helper()
	if !hasModule(module) {
		t.Skipf("needs the module %s, which this kernel lacks", module)
	}
}

func hasModule(name string) bool { return exec.Command("modprobe", "--dry-run", name).Run() == nil }
