package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop"
)

// serverCommand is the name of the command that serves a device. It is for
// add alone, which executes this program with it, a descriptor to read the job
// from, and for ps the path of the file.
const serverCommand = "server-of-add"

// job is what a server is to do, as JSON. Its descriptors are numbers in the
// server, -1 for none.
type job struct {
	Name       string      `json:"name"` // path of the file
	Config     loop.Config `json:"config"`
	Recover    *uint32     `json:"recover,omitempty"` // the device to take over, nil to make one
	Standalone bool        `json:"-"`                 // in a process of its own
	// Autoclear is how long the device stays though nobody uses it; 0 for good.
	Autoclear  time.Duration `json:"-"`
	Foreground bool          `json:"foreground"`
	JSON       bool          `json:"json"`
	FileFD     int           `json:"file_fd"` // from loop.OpenPath
	LogFD      int           `json:"log_fd"`
	NotifyFD   int           `json:"notify_fd"`
	KeyFD      int           `json:"key_fd"`   // the transfer's key, to be read to its end
	Warnings   []string      `json:"warnings"` // of protections that cannot be had

	// The descriptors on this side, nil for none.
	file, log, notify, key *os.File
}

// answer is what a server says once, as a line of JSON: what its device is, or
// why there is none.
type answer struct {
	Status *client.Device `json:"status,omitempty"`
	Error  string         `json:"error,omitempty"`
	Hint   string         `json:"hint,omitempty"`
}

// stay is what a server is told by who started it, who else would end it by
// closing the control descriptor.
const stay = "stay\n"

func (j *job) close() {
	for _, f := range []*os.File{j.file, j.log, j.notify, j.key} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// openLog opens the file that the server's log is appended to.
func (j *job) openLog(path string) error {
	var err error
	j.log, err = openLogFile(path)
	return err
}

func openLogFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// send gives the job to the server at the other end of w.
func (j *job) send(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(j); err != nil {
		return fmt.Errorf("tell the server its job: %w", err)
	}
	return nil
}

// errNotForUsers is what a server says that somebody else than add started.
var errNotForUsers = errors.New(serverCommand + ": only add starts it")

// receiveJob reads the job from the descriptor that the first argument names,
// and returns the descriptor too.
func receiveJob(args []string) (*job, *os.File, error) {
	if len(args) == 0 {
		return nil, nil, errNotForUsers
	}
	fd, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return nil, nil, errNotForUsers
	}
	control := received(int(fd), "control")
	// The whole line: a json.Decoder may leave its end there, for the next who
	// reads. Nothing follows the line before it has been answered.
	line, err := bufio.NewReader(control).ReadBytes('\n')
	if err != nil {
		return nil, nil, errors.Join(errNotForUsers, err)
	}
	j := &job{}
	if err := json.Unmarshal(line, j); err != nil {
		return nil, nil, errors.Join(errNotForUsers, err)
	}
	j.file = received(j.FileFD, j.Name)
	j.log = received(j.LogFD, "log")
	j.notify = received(j.NotifyFD, "notify")
	j.key = received(j.KeyFD, "key")
	return j, control, nil
}

// received returns a descriptor that was inherited, and ends that.
func received(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
