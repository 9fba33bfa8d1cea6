package apart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/loop"
)

// maxReport bounds a report, whatever the process sends.
const maxReport = 4 << 10

// work is the message with the work. If there is a key, it is the next message.
type work struct {
	*loop.Work
	KeyBytes int
}

// report is a message of the process.
type report struct {
	Error string        `json:"error,omitempty"`
	Errno int           `json:"errno,omitempty"`
	Found *loop.Finding `json:"found,omitempty"` // while it serves; otherwise the report is about a step
}

// reportOf returns the report of an error, or of success.
func reportOf(err error) report {
	if err == nil {
		return report{}
	}
	r := report{Error: err.Error()}
	if len(r.Error) > maxReport/2 {
		r.Error = r.Error[:maxReport/2]
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		r.Errno = int(errno)
	}
	return r
}

// err returns the error of a report.
func (r *report) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Errno > 0 && r.Errno < 4096:
		return &reportedError{r.Error, unix.Errno(r.Errno)}
	}
	return errors.New(r.Error)
}

// reportedError is an error of the process.
type reportedError struct {
	text  string
	errno unix.Errno
}

// Error implements error.
func (e *reportedError) Error() string { return e.text }

// Unwrap returns the errno.
func (e *reportedError) Unwrap() error { return e.errno }

// socket is one end of a pair of sockets that keep the borders of messages.
type socket struct{ fd int }

// socketPair returns both ends.
func socketPair() (ours socket, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{-1}, nil, fmt.Errorf("make sockets: %w", err)
	}
	return socket{fds[0]}, os.NewFile(uintptr(fds[1]), "apart"), nil
}

func (s socket) close() { _ = unix.Close(s.fd) }

// say sends the result of a step.
func (s socket) say(err error) error { return s.sendReport(reportOf(err)) }

func (s socket) sendReport(r report) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.send(text)
}

// hear receives the result of a step.
func (s socket) hear() error {
	r, err := s.receiveReport()
	if err != nil {
		return err
	}
	return r.err()
}

func (s socket) receiveReport() (r report, err error) {
	buf := make([]byte, maxReport)
	n, _, err := s.receive(buf, 0)
	if err != nil {
		return report{}, err
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		return report{}, fmt.Errorf("read a report: %w", err)
	}
	return r, nil
}

// send sends a message with descriptors.
func (s socket) send(data []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return eintr.Repeat(func() error { return unix.Sendmsg(s.fd, data, rights, nil, unix.MSG_NOSIGNAL) })
}

// receive receives a message with at most a number of descriptors. At the end it returns io.EOF.
func (s socket) receive(buf []byte, maxFDs int) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*max(maxFDs, 1)))
	var rights, flags int
	err = eintr.Repeat(func() error {
		n, rights, flags, _, err = unix.Recvmsg(s.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("receive a message: %w", err)
	case n == 0:
		return 0, nil, io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || maxFDs == 0 && rights > 0:
		closeRights(oob[:rights])
		return 0, nil, fmt.Errorf("receive a message: %w", unix.EMSGSIZE)
	}
	return n, rightsOf(oob[:rights]), nil
}

// rightsOf returns the descriptors of a message.
func rightsOf(oob []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		if list, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, list...)
		}
	}
	return fds
}

func closeRights(oob []byte) {
	for _, fd := range rightsOf(oob) {
		_ = unix.Close(fd)
	}
}
