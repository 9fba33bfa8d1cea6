package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ledger keeps the results of a run. It writes each result to a file at once, so that a
// later run of the same tree can continue from there.
type ledger struct {
	mu      sync.Mutex // protects the fields below
	results map[string]result
	order   []string
	done    map[string]bool // finished jobs whose tests are unknown beforehand
	file    *os.File        // nil if the results are not kept
	failure error           // the first error in writing the file
}

// line is a line of the file.
type line struct {
	Result *result `json:",omitempty"`
	Done   string  `json:",omitempty"`
}

func newLedger() *ledger { return &ledger{results: map[string]result{}, done: map[string]bool{}} }

// keepResults is how long the file of a tree is kept.
const keepResults = 30 * 24 * time.Hour

// open starts to keep the results in a file. With resume, it first reads the results in
// the file, except the failures.
func (l *ledger) open(path string, resume bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	removeOld(filepath.Dir(path))
	mode := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if resume {
		mode = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		if err := l.read(path); err != nil {
			return fmt.Errorf("read earlier results: %w", err)
		}
	}
	var err error
	if l.file, err = os.OpenFile(path, mode, 0o644); err != nil {
		return err
	}
	_, err = l.file.WriteString("\n") // ends a line that an earlier run did not complete
	return err
}

func removeOld(dir string) {
	entries, _ := os.ReadDir(dir) // a directory that cannot be read keeps its files
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > keepResults {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (l *ledger) read(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var entry line
		if json.Unmarshal(lines.Bytes(), &entry) != nil {
			continue // the last line of a run that was killed
		}
		if entry.Done != "" {
			l.done[entry.Done] = true
		}
		if r := entry.Result; r != nil {
			l.set(*r)
		}
	}
	for name, r := range l.results {
		if r.failed() {
			delete(l.results, name)
		}
	}
	l.order = slices.DeleteFunc(l.order, func(name string) bool { _, is := l.results[name]; return !is })
	return nil
}

func (l *ledger) set(r result) {
	name := r.String()
	if _, is := l.results[name]; !is {
		l.order = append(l.order, name)
	}
	l.results[name] = r
}

// add stores a result. It replaces an earlier result of the same test.
func (l *ledger) add(r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(r)
	l.write(line{Result: &r})
}

// finish notes that a job is done and does not have to run again.
func (l *ledger) finish(title string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[title] = true
	l.write(line{Done: title})
}

func (l *ledger) write(entry line) {
	if l.file == nil {
		return
	}
	text, err := json.Marshal(entry)
	if err == nil {
		_, err = l.file.Write(append(text, '\n'))
	}
	l.failure = errors.Join(l.failure, err)
}

// has reports whether a test has run on a bed.
func (l *ledger) has(r result) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, is := l.results[r.String()]
	return is
}

// isDone reports whether a job was finished.
func (l *ledger) isDone(title string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[title]
}

// all returns the results in the order in which add first received them.
func (l *ledger) all() []result {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]result, 0, len(l.order))
	for _, name := range l.order {
		list = append(list, l.results[name])
	}
	return list
}

// close returns the first error that occurred in writing the file.
func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	return errors.Join(l.failure, l.file.Close())
}
