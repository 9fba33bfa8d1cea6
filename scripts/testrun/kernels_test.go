package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A run says which kernels it has had, and which of them are not those with which all tests have passed.
func TestDescribeKernels(t *testing.T) {
	names := []string{"uml", "7.3", "6.18", "6.12", "uml", "/my/kernel"} // that with the race detector is the same
	versions := map[string]string{"uml": "7.3.4", "7.3": "7.3.40+deb13-cloud-amd64", "6.12": "6.12.117+deb13-cloud-amd64", "/my/kernel": "7.4.0-rc1"}
	known := knownVersions("# 5.0 trixie linux # 5.0.1\numl a b  # 7.3.4\n7.3  a  b* c  # 7.3.4\n6.12 a b # 6.12.117\n6.18 a b\n")
	const want = "uml is 7.3.4, 7.3 is 7.3.40+deb13-cloud-amd64 (not 7.3.4, which kernels.txt names), 6.12 is 6.12.117+deb13-cloud-amd64, /my/kernel is 7.4.0-rc1"
	if got := describeKernels(versions, known, names); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// The version of a kernel is the name of the directory of its modules. Each kernel of the matrix has one in kernels.txt.
func TestVersions(t *testing.T) {
	dir := t.TempDir()
	if got := versionOf(dir); got != "" {
		t.Errorf("no kernel has version %q", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, "lib/modules/6.12.1-x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := versionOf(dir); got != "6.12.1-x" {
		t.Errorf("version %q", got)
	}
	text, err := os.ReadFile("../kernels.txt")
	if err != nil {
		t.Fatal(err)
	}
	versions := knownVersions(string(text))
	for _, name := range []string{"uml", "6.12", "6.18", "7.3"} {
		if series := strings.Replace(name, "uml", "7.3", 1); !strings.HasPrefix(versions[name], series+".") {
			t.Errorf("%s: version %q", name, versions[name])
		}
	}
}
