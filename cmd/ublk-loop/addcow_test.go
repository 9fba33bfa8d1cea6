package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop/cowfile"
)

func TestCowFlag(t *testing.T) {
	for text, want := range map[string]cowfile.TableOptions{
		"a":                      {Path: "a"},
		"a,b":                    {Path: "a,b"},
		"a,transient":            {Path: "a", Transient: true},
		"a,chunk=16K":            {Path: "a", ChunkSize: 16 << 10},
		"a,chunk=1M,transient":   {Path: "a", ChunkSize: 1 << 20, Transient: true},
		"a,transient,b,chunk=4K": {Path: "a,transient,b", ChunkSize: 4 << 10},
		"a,chunk=4K,chunk=8K":    {Path: "a", ChunkSize: 4 << 10},
		"":                       {},
		",transient":             {},
		"a,chunk=3K":             {},
		"a,chunk=2M":             {},
		"a,chunk=x":              {},
		"transient":              {Path: "transient"},
	} {
		var got cowfile.TableOptions
		err := cowFlag{&got}.Set(text)
		if want.Path == "" {
			if err == nil {
				t.Errorf("%q is taken as %+v", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %+v, error %v, want %+v", text, got, err, want)
		}
	}
}

// The job has the table of the snapshot and both files. A transient store needs no lock, so that
// the test needs no root.
func TestAddCow(t *testing.T) {
	base := someFile(t)
	store := filepath.Join(t.TempDir(), "store")
	b := newBench()
	b.check(t, []string{"add", base, "--cow", store + ",chunk=8K,transient"}, 0, "\n", "")
	if want := "0 8 snapshot " + base + " " + store + " N 16\n"; b.job == nil || b.job.Config.Table != want || len(b.job.Files) != 2 || b.job.Name != base {
		t.Errorf("job %+v", b.job)
	}
	for _, args := range [][]string{
		{"add", "--cow", store},
		{"add", base, "--cow", store, "--table", "x"},
		{"add", base, "--cow", store, "--offset", "512"},
		{"add", base, "--cow", store, "--sector-size", "4096"},
	} {
		b := newBench()
		if status := b.run(args); status != 2 || b.job != nil {
			t.Errorf("%q: status %d", args, status)
		}
	}
}

// A mistyped option is not the end of the name of a new store.
func TestAddCowUnknownOption(t *testing.T) {
	base, dir := someFile(t), t.TempDir()
	store := filepath.Join(dir, "a,b")
	b := newBench()
	b.check(t, []string{"add", base, "--cow", store + ",transient"}, 2, "",
		"ublk-loop: error: --cow "+store+": unknown option \"b\"\nhint: options are chunk=BYTES and transient; cow create makes a store with a comma in its name\n")
	if _, err := os.Lstat(store); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	if err := os.WriteFile(store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"add", base, "--cow", store + ",transient"}, 0, "\n", "")
}

// add warns of a store that has become invalid, because all I/O fails.
func TestAddInvalidStore(t *testing.T) {
	base, store := someFile(t), filepath.Join(t.TempDir(), "store")
	for _, valid := range []byte{0, 1} {
		header := make([]byte, 64<<10)
		copy(header, []byte{'S', 'n', 'A', 'p', valid, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0})
		if err := os.WriteFile(store, header, 0o600); err != nil {
			t.Fatal(err)
		}
		warning := ""
		if valid == 0 {
			warning = "ublk-loop: warning: " + base + ": the changes in " + store + " are lost, and all I/O fails with EIO\n"
		}
		b := newBench()
		b.check(t, []string{"add", base, "--cow", store}, 0, "\n", warning)
	}
}
