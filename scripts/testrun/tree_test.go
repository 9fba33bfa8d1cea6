package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The key of a tree changes when a file changes, and only then.
func TestTreeKey(t *testing.T) {
	top := tree(t, map[string]string{"a": "1", ".gitignore": "bin\n"})
	for _, args := range [][]string{
		{"init", "-q"},
		{"add", "-A"},
		{"-c", "user.name=x", "-c", "user.email=x@example", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "x"},
	} {
		cmd := exec.Command("git", append([]string{"-C", top}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	seen := map[string]string{}
	for _, c := range []struct{ name, file, text string }{
		{"committed", "", ""}, {"changed", "a", "2"}, {"changed again", "a", "3"}, {"with a new file", "b", "1"}, {"whose text differs", "b", "2"},
	} {
		if c.file != "" {
			put(t, filepath.Join(top, c.file), c.text)
		}
		key, err := treeKey(top)
		if err != nil || seen[key] != "" {
			t.Errorf("%s: key %s, error %v; as %q", c.name, key, err, seen[key])
		}
		seen[key] = c.name
	}
	before, err := treeKey(top)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "bin"), "built")
	if after, err := treeKey(top); err != nil || after != before {
		t.Errorf("what is ignored makes %s of %s, error %v", after, before, err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
