package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// result is the outcome of the tests against a mutant.
type result struct {
	Caught bool
	How    string // the test that failed, and its message
}

// results stores the outcomes, so that a stopped run can be continued.
type results struct{ dir string }

// keepFor is how long results stay after their last use.
const keepFor = 30 * 24 * time.Hour

// path returns the path of a file with results for the present state of a package.
func (r *results) path(p *pkg, t *tier, name string) string {
	return filepath.Join(r.dir, p.digest+"-"+t.name+"-"+name)
}

// load returns the result of an earlier run, or nil.
func (r *results) load(m *mutant, t *tier) *result {
	path := r.path(m.pkg, t, m.id()+".json")
	src, err := os.ReadFile(path)
	found := &result{}
	if err != nil || json.Unmarshal(src, found) != nil {
		return nil
	}
	return found
}

func (r *results) save(m *mutant, t *tier, found *result) error {
	src, err := json.Marshal(found)
	if err != nil {
		return err
	}
	return r.write(r.path(m.pkg, t, m.id()+".json"), src)
}

// write replaces a file atomically. A stopped run leaves no partial file, and another run
// reads none.
func (r *results) write(path string, src []byte) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	half, err := os.CreateTemp(r.dir, "new")
	if err != nil {
		return err
	}
	_, err = half.Write(src)
	if err = errors.Join(err, half.Close()); err != nil {
		return err
	}
	return os.Rename(half.Name(), path)
}

// prune removes outdated results.
func (r *results) prune() error {
	files, err := filepath.Glob(filepath.Join(r.dir, "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || time.Since(info.ModTime()) < keepFor {
			continue
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove old result: %w", err)
		}
	}
	return nil
}
