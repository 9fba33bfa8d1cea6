package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// docs/kubernetes.md has each flag, and each test that it names exists.
func TestDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	newCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(string(doc), "`--"+f.Name+"`") {
			t.Errorf("docs/kubernetes.md lacks --%s", f.Name)
		}
	})
	var tests strings.Builder
	for _, pattern := range []string{"*_test.go", "*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %q, error %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
	}
	for _, name := range regexp.MustCompile("Test[A-Z][A-Za-z]+").FindAllString(string(doc), -1) {
		if !strings.Contains(tests.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("docs/kubernetes.md names %s, which does not exist", name)
		}
	}
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
