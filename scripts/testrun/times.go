package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// times are how many seconds each test took in its last run on a bed, by the name of its
// result. They only affect the order and the grouping of tests.
type times struct {
	path string

	mu      sync.Mutex // protects the field below
	seconds map[string]float64
}

// Seconds for a test that has no earlier time on a bed, and for the start and end of a
// machine.
var (
	usual = map[kind]float64{host: 2, uml: 2, machine: 12}
	start = map[kind]float64{host: 0, uml: 2, machine: 15}
)

// readTimes reads the times. A missing or damaged file counts as empty.
func readTimes(path string) *times {
	t := &times{path: path, seconds: map[string]float64{}}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &t.seconds)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "testrun: %s: %v: the earlier times of tests are unknown\n", path, err)
	}
	if t.seconds == nil {
		t.seconds = map[string]float64{}
	}
	return t
}

// expect returns how many seconds a test is expected to take on a bed.
func (t *times) expect(p placement) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, known := t.seconds[result{Bed: p.bed.name, Pkg: p.pkg.Dir, Test: p.name}.String()]; known {
		return s
	}
	return usual[p.bed.kind]
}

// saw stores how long a test took. It ignores failures.
func (t *times) saw(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Test != "" && !r.failed() {
		t.seconds[r.String()] = r.Seconds
	}
}

// write writes the times for the next run.
func (t *times) write() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, err := json.MarshalIndent(t.seconds, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", t.path, os.Getpid())
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, t.path)
}
