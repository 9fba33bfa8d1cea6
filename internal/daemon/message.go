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
)

// descriptors are open files that one process passes to another, by name. A nil file is
// not passed.
type descriptors map[string]*os.File

// close closes all of them.
func (d descriptors) close() {
	for _, f := range d {
		if f != nil {
			_ = f.Close()
		}
	}
}

// message is what a process is told when it starts.
type message struct {
	Task json.RawMessage `json:"task"`
	// Descriptors are open in the process, by name.
	Descriptors map[string]descriptor `json:"descriptors"`
}

// descriptor is an open file in a message.
type descriptor struct {
	FD   int    `json:"fd"`
	Path string `json:"path"` // the name that the file has in Go
}

// encode returns a message as a line of JSON.
func encode(task any, files descriptors) ([]byte, error) {
	m := message{Descriptors: map[string]descriptor{}}
	for name, f := range files {
		if f != nil {
			m.Descriptors[name] = descriptor{int(f.Fd()), f.Name()}
		}
	}
	var err error
	if m.Task, err = json.Marshal(task); err != nil {
		return nil, fmt.Errorf("encode the task: %w", err)
	}
	text, err := json.Marshal(&m)
	return append(text, '\n'), err
}

// inMemory returns an anonymous file with a message, to be read from its start. A pipe
// might not take all of it, and there is no reader before the exec.
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

// receive reads the message that is in the descriptor which the first argument of a role
// names. No process inherits what it returns.
func receive(r role, args []string, task any) (descriptors, error) {
	f, text, err := receiveText(r, args)
	if err != nil {
		return nil, err
	}
	return decode(r, f, text, task)
}

// receiveText returns the line of a message, and the file that it comes in.
func receiveText(r role, args []string) (*os.File, []byte, error) {
	if len(args) == 0 {
		return nil, nil, r.notForUsers(nil)
	}
	fd, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return nil, nil, r.notForUsers(nil)
	}
	f := received(int(fd), "task")
	// The whole line: a json.Decoder may leave the end of the line for the next reader.
	// A stream has nothing behind the line before that is answered.
	text, err := bufio.NewReader(f).ReadBytes('\n')
	if err != nil {
		return nil, nil, errors.Join(r.notForUsers(err), f.Close())
	}
	return f, text, nil
}

// decode reads a message that has come in a file. The file is closed, unless it is one of
// the descriptors itself.
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
		files[name] = received(d.FD, d.Path)
	}
	if f != nil {
		_ = f.Close()
	}
	return files, nil
}

// received returns a descriptor that this process was started with, and has it closed
// at the next exec. It returns nil for a negative number.
func received(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
