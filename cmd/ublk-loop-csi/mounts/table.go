package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ublk-loop/ublk-loop/internal/mountpoint"
)

// Mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	MajMin   string // of the file system's device
	Root     string // the directory of the file system that is mounted
	Target   string
	ReadOnly bool // of this mount
	FSType   string
}

// Table is a list of mounts, in the order in which they were made.
type Table []Mount

// Read reads the mounts of this process.
func Read() (Table, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parse(string(text))
}

func parse(text string) (Table, error) {
	var t Table
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, rest := mountpoint.Fields(before), mountpoint.Fields(after)
		if !ok || len(fields) < 6 || rest[0] == "" {
			return nil, fmt.Errorf("read mountinfo: line %q", line)
		}
		t = append(t, Mount{
			MajMin: fields[2], Root: mountpoint.Unescape(fields[3]), Target: mountpoint.Unescape(fields[4]),
			ReadOnly: strings.HasPrefix(fields[5]+",", "ro,"), FSType: rest[0],
		})
	}
	return t, nil
}

// At returns the topmost mount at a path, nil if there is none. The kernel lists mounts without the links that
// lead to them.
func (t Table) At(path string) *Mount {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil { // without the directory there is no mount
		path = filepath.Join(dir, filepath.Base(path))
	}
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].Target == path {
			return &t[i]
		}
	}
	return nil
}

// Of reports whether a file system of a device is mounted anywhere.
func (t Table) Of(majMin string) bool {
	for i := range t {
		if t[i].MajMin == majMin {
			return true
		}
	}
	return false
}
