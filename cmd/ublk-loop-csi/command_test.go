package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// docs/kubernetes.md has each flag with its default.
func TestDocumentation(t *testing.T) {
	t.Setenv("CSI_ENDPOINT", "")
	t.Setenv("NODE_NAME", "")
	doc, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	newCommand().Flags().VisitAll(func(f *pflag.Flag) {
		_, row, found := strings.Cut(string(doc), "\n| `--"+f.Name+"` | ")
		row, _, _ = strings.Cut(row, "\n")
		if !found || !strings.Contains(row, f.DefValue) && f.Name != "socket" { // which is that of serve
			t.Errorf("docs/kubernetes.md lacks --%s, or its default %q", f.Name, f.DefValue)
		}
	})
}

func TestCommandLine(t *testing.T) {
	t.Setenv("CSI_ENDPOINT", "")
	t.Setenv("NODE_NAME", "")
	for _, args := range [][]string{
		{"extra"},
		{"--unknown"},
		{"--endpoint", ""},
		{"--endpoint", "tcp://x"},
		{"--endpoint", "unix:///x", "--reserve", "much"},
		{"--endpoint", "unix:///x", "--ephemeral-limit", "much"},
		{"--endpoint", "unix:///x", "--ephemeral-limit", "0"},
	} {
		cmd := newCommand()
		cmd.SetArgs(append(args, "--pool", filepath.Join(t.TempDir(), "pool")))
		if err := cmd.Execute(); !errors.Is(err, errUsage) || exitStatus(err) != 2 {
			t.Errorf("%q: error %v", args, err)
		}
	}
	for endpoint, want := range map[string]string{"/a/b": "/a/b", "unix:/a/b": "/a/b", "unix:///a/b": "/a/b"} {
		if got, err := socketPath(endpoint); got != want || err != nil {
			t.Errorf("%q: %q, error %v", endpoint, got, err)
		}
	}
}
