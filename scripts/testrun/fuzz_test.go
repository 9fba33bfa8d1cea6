package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeGo puts a program go in the path that adds its arguments to a file, and prints a text in
// place of the output of a fuzz test. It returns the path of the file.
func fakeGo(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "arguments")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + file + "\necho '" + text + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return file
}

// Fuzz tests spend their time on the search, and not on making its finds smaller. One that ran
// next to nothing has failed.
func TestFuzz(t *testing.T) {
	for text, good := range map[string]bool{
		"fuzz: elapsed: 3s, execs: 5 (1/sec)\nfuzz: elapsed: 6s, execs: 122000 (9/sec)": true,
		"fuzz: elapsed: 3s, execs: 2000 (1/sec)\nfuzz: elapsed: 60s, execs: 3 (0/sec)":  false,
		"fuzz: elapsed: 60s": false, "ok": false,
	} {
		file := fakeGo(t, text)
		out, err := exec.Command("../fuzz.sh", "7s", "./loop", "FuzzA").CombinedOutput()
		if (err == nil) != good || strings.Contains(string(out), "less than 1000") == good {
			t.Errorf("%q: error %v\n%s", text, err, out)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		args := strings.Fields(string(b))
		for flag, want := range map[string]string{"-fuzz": "^FuzzA$", "-fuzztime": "7s", "-fuzzminimizetime": "10x"} {
			if i := slices.Index(args, flag); i < 0 || args[i+1] != want {
				t.Errorf("%s is not %s in %q", flag, want, args)
			}
		}
	}
}
