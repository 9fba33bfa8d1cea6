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

// times are how many seconds each test took when it last ran on a bed, by the
// name of its result. They only decide what runs first and what runs together.
type times struct {
	path string

	mu      sync.Mutex // protects what is below
	seconds map[string]float64
}

// Seconds that a test is expected to take which has not run on a bed, and those
// that a machine takes to start and end.
var (
	usual = map[kind]float64{host: 2, uml: 2, machine: 12}
	start = map[kind]float64{host: 0, uml: 2, machine: 15}
)

// readTimes reads what is known. A file that is not there or broken is none.
func readTimes(path string) *times {
	t := &times{path: path, seconds: map[string]float64{}}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &t.seconds)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(os.Stderr, "testrun: %s: %v: no times are known\n", path, err)
	}
	if t.seconds == nil {
		t.seconds = map[string]float64{}
	}
	return t
}

// expect returns how long a test will take on a bed.
func (t *times) expect(p placement) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, known := t.seconds[result{Bed: p.bed.name, Pkg: p.pkg.Dir, Test: p.name}.String()]; known {
		return s
	}
	return usual[p.bed.kind]
}

// saw notes how long a test took.
func (t *times) saw(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Test != "" && !r.failed() {
		t.seconds[r.String()] = r.Seconds
	}
}

// write keeps the times for the next run.
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
