package daemon

import (
	"fmt"
	"os"
	"time"

	"github.com/ublk-loop/ublk-loop/loop"
)

// Job is what the caller wants a server of one device for.
type Job struct {
	Name       string // path of the file
	Config     loop.Config
	Recover    *uint32 // the device to take over, nil to make one
	Standalone bool    // in a process of its own
	// Autoclear is how long the device stays though nobody uses it; 0 for good.
	Autoclear    time.Duration
	Foreground   bool
	JSON         bool
	Warnings     []string // of protections that are not available
	NotifySocket string   // of the service manager, for a foreground server; empty for none

	File *os.File // from loop.OpenPath
	Log  *os.File // nil for none
	Key  *os.File // the transfer's key, to be read to its end; nil for none
}

// Close closes the files of the job.
func (j *Job) Close() {
	for _, f := range []*os.File{j.File, j.Log, j.Key} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// OpenLog opens the file that the server's log is appended to.
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

// The names of the descriptors of a server of one device.
const (
	controlFile = "control" // where it answers, unless it is in the foreground
	backingFile = "file"
	logFile     = "log"
	notifyFile  = "notify"
	keyFile     = "key"
)

// launch returns how a server of the job is started. It notes the warnings of the start
// in the job.
func (j *Job) launch(more descriptors) *launch {
	files := descriptors{backingFile: j.File, logFile: j.Log, keyFile: j.Key}
	for name, f := range more {
		files[name] = f
	}
	return &launch{
		role: singleRole, files: files, name: j.Name,
		task: func(warnings []string) any {
			j.Warnings = append(j.Warnings, warnings...)
			return singleTaskOf(j)
		},
	}
}
