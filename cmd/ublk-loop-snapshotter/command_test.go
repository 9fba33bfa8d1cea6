package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
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

// Sizes have the suffixes that the manual of ublk-loop describes.
func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"10G": 10 << 30, "10GiB": 10 << 30, "10GB": 10e9, "4096": 4096} {
		if got, maxSize, err := (&options{size: text}).sizes(); err != nil || got != want || maxSize != want {
			t.Errorf("%s: %d and %d bytes, error %v, want %d", text, got, maxSize, err, want)
		}
	}
}

// docs/containers.md has each flag with its default.
func TestFlagsDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	newCommand().Flags().VisitAll(func(f *pflag.Flag) {
		_, row, found := strings.Cut(string(document), "\n| `--"+f.Name+" ")
		row, _, _ = strings.Cut(row, "\n")
		if !found || f.DefValue != "" && !strings.HasSuffix(row, "| `"+f.DefValue+"` |") {
			t.Errorf("docs/containers.md lacks --%s, or its default %q", f.Name, f.DefValue)
		}
	})
}
