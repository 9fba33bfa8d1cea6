package ublktest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHasModule(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "modprobe"), []byte("#!/bin/sh\ntest \"$1 $2\" = '--dry-run there'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for module, want := range map[string]bool{"there": true, "missing": false} {
		if has := hasModule(module); has != want {
			t.Errorf("module %s: %v, want %v", module, has, want)
		}
	}
}
