package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// treeKey names the state of the source tree: its commit, and the differences from the
// commit. Results of another state say nothing about this state.
func treeKey(top string) (string, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", append([]string{"-c", "safe.directory=" + top, "-C", top}, args...)...)
		out, err := cmd.Output()
		return string(out), err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return "", fmt.Errorf("name the commit: %w", err)
	}
	changed, err := git("diff", "HEAD", "--binary")
	if err != nil {
		return "", fmt.Errorf("compare with the commit: %w", err)
	}
	added, err := git("ls-files", "--others", "--exclude-standard", "-z")
	if err != nil {
		return "", fmt.Errorf("list new files: %w", err)
	}
	key := strings.TrimSpace(commit)
	if changed == "" && added == "" {
		return key, nil
	}
	sum := sha256.New()
	fmt.Fprint(sum, changed, added)
	for name := range strings.SplitSeq(added, "\x00") {
		if err := addFile(sum, filepath.Join(top, name)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s-%x", key, sum.Sum(nil)[:8]), nil
}

func addFile(sum io.Writer, path string) error {
	if isDir(path) {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(sum, f)
	return firstError(err, f.Close())
}
