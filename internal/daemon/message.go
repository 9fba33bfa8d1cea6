package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// descriptors are open files, by name, that one process passes to another. A nil file is
// not passed.
type descriptors map[string]*os.File

// message is the input of a started process.
type message struct {
	Task json.RawMessage `json:"task"`
	// Descriptors are the open files of the process, by name.
	Descriptors map[string]descriptor `json:"descriptors"`
}

// descriptor is an open file in a message.
type descriptor struct {
	FD   int    `json:"fd"`
	Path string `json:"path"` // the name of the os.File
	// PathBytes is there for a path that is not UTF-8 (package rawname).
	PathBytes []byte `json:"path_bytes,omitempty"`
}

// encode returns a message as a line of JSON.
func encode(task any, files descriptors) ([]byte, error) {
	m := message{Descriptors: map[string]descriptor{}}
	for name, f := range files {
		if f != nil {
			m.Descriptors[name] = descriptor{int(f.Fd()), f.Name(), rawname.Bytes(f.Name())}
		}
	}
	var err error
	if m.Task, err = json.Marshal(task); err != nil {
		return nil, fmt.Errorf("encode the task: %w", err)
	}
	text, err := json.Marshal(&m)
	return append(text, '\n'), err
}

// inMemory writes a message to an anonymous file, and returns the file at its start. A
// pipe might not take the whole message, because its reader exists only after the exec.
func inMemory(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("task", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for the task: %w", err)
	}
	f := os.NewFile(uintptr(fd), "task")
	if _, err = f.Write(text); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the task: %w", err), f.Close())
	}
	return f, nil
}

// receive reads the message of a role from the descriptor that the first argument names.
// The returned files are closed at an exec.
func receive(r role, args []string, task any) (descriptors, error) {
	f, text, err := receiveText(r, args)
	if err != nil {
		return nil, err
	}
	return decode(r, f, text, task)
}

// receiveText returns the line of a message, and the file that it was read from.
func receiveText(r role, args []string) (*os.File, []byte, error) {
	if len(args) == 0 {
		return nil, nil, r.notForUsers(nil)
	}
	fd, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return nil, nil, r.notForUsers(nil)
	}
	f := received(int(fd), "task")
	// This reads only the line: a json.Decoder could leave the end of the line for the
	// next reader. A stream has no data behind the line until this process answers.
	text, err := bufio.NewReader(f).ReadBytes('\n')
	if err != nil {
		return nil, nil, errors.Join(r.notForUsers(err), f.Close())
	}
	return f, text, nil
}

// decode decodes a message that was read from f. It closes f, unless f is one of the
// descriptors.
func decode(r role, f *os.File, text []byte, task any) (descriptors, error) {
	var m message
	err := json.Unmarshal(text, &m)
	if err == nil {
		err = json.Unmarshal(m.Task, task)
	}
	if err != nil {
		return nil, errors.Join(r.notForUsers(err), f.Close())
	}
	files := descriptors{}
	for name, d := range m.Descriptors {
		if f != nil && d.FD == int(f.Fd()) {
			files[name], f = f, nil
			continue
		}
		files[name] = received(d.FD, rawname.Name(d.Path, d.PathBytes))
	}
	if f != nil {
		_ = f.Close()
	}
	return files, nil
}

// received returns a descriptor that this process was started with, and marks it
// close-on-exec. It returns nil for a negative number.
func received(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
