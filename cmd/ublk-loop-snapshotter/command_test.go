package main

import (
	"path/filepath"
	"testing"
)

// Wrong usage and other failures have different exit statuses.
func TestExitStatus(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--roo", root}, 2},
		{[]string{"--root", root, "more"}, 2},
		{[]string{"--root", root, "--size", "big"}, 2},
		{[]string{"--root", "/dev/null/root"}, 1},
	} {
		cmd := newCommand()
		cmd.SetArgs(tt.args)
		err := cmd.ExecuteContext(t.Context())
		if err == nil || exitStatus(err) != tt.want {
			t.Errorf("%q: exit status %d, want %d: %v", tt.args, exitStatus(err), tt.want, err)
		}
	}
}
