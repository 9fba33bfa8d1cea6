package apart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// maxMessage bounds a request that is a message as a whole.
const maxMessage = 1 << 10

// request is a message to the process in the sandbox. It has a Work or a Request, or says Cancel or
// Settle.
type request struct {
	head
	*serving.Request
	Work *serving.Work `json:",omitempty"` // serve a device, from now on with this number

	over <-chan struct{} // closed at the end of the device; nil if it is not served
}

// head is the part of a request that is always in the message. A long request is in a file, which the process
// does not get if it has too many descriptors.
type head struct {
	ID       uint64 // of the request; the answer has the same
	Device   uint64 `json:",omitempty"` // number of the device
	KeyBytes int    `json:",omitempty"` // length of the key of Work, which is the next message; 0 for none
	Cancel   bool   `json:",omitempty"` // end what the request with this ID does
	Settle   bool   `json:",omitempty"` // see Process.Settle; no answer follows
	IsLong   bool   `json:",omitempty"` // the first descriptor is a file with the whole request
}

// sendRequest sends a request of any size, with descriptors. A short one needs no other descriptors: what ends
// or undoes another must arrive, however many files are open.
func (s socket) sendRequest(r request, fds ...int) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(text) <= maxMessage {
		return s.send(text, fds...)
	}
	file, err := inMemory(text)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	r.head.IsLong = true
	if text, err = json.Marshal(r.head); err != nil {
		return err
	}
	return s.send(text, append([]int{int(file.Fd())}, fds...)...)
}

// receiveRequest receives a request, and its descriptors. With errNoRoom the request may have only its head.
func (s socket) receiveRequest(maxFDs int) (r request, fds []int, err error) {
	buf := make([]byte, maxMessage)
	n, fds, lost := s.receive(buf, 1+maxFDs)
	if lost != nil && n == 0 {
		return request{}, nil, lost
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return request{}, nil, fmt.Errorf("read a request: %w", err)
	}
	if lost != nil || !r.IsLong {
		return r, fds, lost
	}
	if len(fds) == 0 {
		return request{}, nil, fmt.Errorf("a request without a text: %w", unix.EBADMSG)
	}
	text, err := readAll(fds[0])
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return request{}, nil, fmt.Errorf("read a request: %w", err)
	}
	return r, fds[1:], nil
}

// inMemory returns a file of memory, at its start.
func inMemory(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for a message: %w", err)
	}
	f := os.NewFile(uintptr(fd), "message")
	if _, err = f.Write(text); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readAll reads a file of memory to its end, and closes it.
func readAll(fd int) ([]byte, error) {
	defer func() { _ = unix.Close(fd) }()
	var text bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n := 0
		err := eintr.Repeat(func() (err error) { n, err = unix.Read(fd, buf); return err })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return text.Bytes(), nil
		}
		text.Write(buf[:n])
	}
}
