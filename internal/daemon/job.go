package daemon

import (
	"fmt"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/loop"
)

// Job describes a server of one device that the caller needs.
type Job struct {
	Name       string // path of the file
	Config     loop.Config
	Recover    *uint32 // the device to take over, nil to make a new one
	Standalone bool    // in a process of its own
	// Autoclear is the time for which the device stays even if it is not in use; 0 for
	// ever.
	Autoclear  time.Duration
	Foreground bool
	// Root says that the device is to hold the root file system. Its server outlives the
	// initramfs that starts it.
	Root         bool
	JSON         bool
	Warnings     []string // of unavailable protections
	NotifySocket string   // the service manager's, for a foreground server; empty for none

	File *os.File // from loop.OpenPath; nil for tables
	// Files are the files and disks of Config.Table, from loop.OpenTableDevice.
	Files []*os.File
	Log   *os.File // nil for none
	Key   *os.File // the transfer's key, which the server reads to its end; nil for none
}

// Close closes the files of the job.
func (j *Job) Close() {
	for _, f := range append(j.Files, j.File, j.Log, j.Key) {
		if f != nil {
			_ = f.Close()
		}
	}
}

// OpenLog opens the log file, to which the server appends.
func (j *Job) OpenLog(path string) error {
	var err error
	j.Log, err = openLogFile(path)
	return err
}

func openLogFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// These are the names of the descriptors of a server of one device.
const (
	controlFile  = "control"  // for the answer, except in the foreground
	lifelineFile = "lifeline" // of process.Lifeline, until the server stays
	backingFile  = "file"
	tableFile    = "table/" // and the number of the file in Job.Files
	logFile      = "log"
	journalFile  = "journal"
	notifyFile   = "notify"
	keyFile      = "key"
)

// launch returns how to start a server for the job. The start adds its warnings to the
// job.
func (j *Job) launch(more descriptors) *launch {
	files := descriptors{backingFile: j.File, logFile: j.Log, keyFile: j.Key}
	for i, f := range j.Files {
		files[fmt.Sprint(tableFile, i)] = f
	}
	for name, f := range more {
		files[name] = f
	}
	return &launch{
		role: singleRole, files: files, name: j.Name, survives: j.Root,
		task: func(warnings []string) any {
			j.Warnings = append(j.Warnings, warnings...)
			return singleTaskOf(j)
		},
	}
}
