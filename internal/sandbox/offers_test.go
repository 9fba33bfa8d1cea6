package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

// A kernel that lacks one of the namespaces of a process in the sandbox lacks this part.
func TestHasNamespaces(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"mnt", "net", "ipc", "uts", "pid"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !hasNamespaces(dir) {
		t.Error("with all of them it is missing")
	}
	for _, name := range []string{"mnt", "net", "ipc", "uts"} {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if hasNamespaces(dir) {
			t.Errorf("without %s it is there", name)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
