package apart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/rawname"
	"github.com/ublk-loop/ublk-loop/loop/serving"
)

// These bound a report, and the text of an error in it, whatever the process sends.
const (
	maxReport = 32 << 10
	maxError  = 2 << 10
)

// report is a message of the process: the result of a step, and in the sandbox an answer, something that
// it has found, the end of a device, or the failure of all.
type report struct {
	Error string           `json:"error,omitempty"`
	Errno int              `json:"errno,omitempty"`
	Hint  string           `json:"hint,omitempty"`
	Found *serving.Finding `json:"found,omitempty"`
	// Device is the number of the device that Found is about, or that has ended.
	Device uint64 `json:"device,omitempty"`
	// ID is that of the request that Answer belongs to, which is set also for an error.
	ID     uint64          `json:"id,omitempty"`
	Answer *serving.Answer `json:"answer,omitempty"`
}

// reportOf returns the report of an error, or of success.
func reportOf(err error) report {
	if err == nil {
		return report{}
	}
	r := report{Error: rawname.Error(err)}
	if len(r.Error) > maxError {
		r.Error = strings.ToValidUTF8(r.Error[:maxError], "")
	}
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		r.Errno = int(errno)
	case errors.Is(err, errors.ErrUnsupported):
		r.Errno = int(unix.EOPNOTSUPP)
	}
	var hinted *hint.Error
	if errors.As(err, &hinted) && len(hinted.Hint) <= maxError {
		r.Hint = rawname.Text(hinted.Hint)
	}
	return r
}

// err returns the error of a report.
func (r *report) err() error {
	if r.Error == "" {
		return nil
	}
	err := errors.New(r.Error)
	if r.Errno > 0 && r.Errno < 4096 {
		err = &reportedError{r.Error, unix.Errno(r.Errno)}
	}
	if r.Hint != "" {
		err = &hint.Error{Err: err, Hint: r.Hint}
	}
	return err
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
	ours, theirs = socket{fds[0]}, os.NewFile(uintptr(fds[1]), "apart")
	if err := ours.limitSends(sendTimeout); err != nil {
		ours.close()
		return socket{-1}, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// sendTimeout is how long a message may wait for the process to read those before it, which it does at
// once. A process that reads nothing must not keep the server waiting.
const sendTimeout = 10 * time.Second

// limitSends makes a send fail with EAGAIN after a time.
func (s socket) limitSends(after time.Duration) error {
	limit := unix.NsecToTimeval(after.Nanoseconds())
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
}

func (s socket) close() { _ = unix.Close(s.fd) }

// say sends the result of a step, and descriptors.
func (s socket) say(err error, fds ...int) error { return s.sendReport(reportOf(err), fds...) }

// sendReport sends a report with descriptors. An answer that is too long for one becomes an error of its request.
func (s socket) sendReport(r report, fds ...int) error {
	text, err := json.Marshal(r)
	if err == nil && len(text) > maxReport {
		err = fmt.Errorf("an answer of %d bytes: %w", len(text), unix.EMSGSIZE)
	}
	if err != nil && r.ID != 0 {
		failed := reportOf(err)
		failed.ID = r.ID
		text, err = json.Marshal(failed)
	}
	if err != nil {
		return err
	}
	return s.send(text, fds...)
}

// hear receives the result of a step.
func (s socket) hear() error {
	r, err := s.receiveReport(make([]byte, maxReport))
	if err != nil {
		return err
	}
	return r.err()
}

// hearWith receives the result of a step with at most a number of descriptors. After an error none is open.
func (s socket) hearWith(maxFDs int) ([]int, error) {
	buf := make([]byte, maxReport)
	n, fds, err := s.receive(buf, maxFDs)
	if err != nil {
		return nil, err
	}
	r, err := parseReport(buf[:n])
	if err = errors.Join(err, r.err()); err != nil {
		closeFDs(fds)
		return nil, err
	}
	return fds, nil
}

// receiveReport receives a report with a buffer of maxReport bytes.
func (s socket) receiveReport(buf []byte) (report, error) {
	n, _, err := s.receive(buf, 0)
	if err != nil {
		return report{}, err
	}
	return parseReport(buf[:n])
}

func parseReport(text []byte) (r report, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
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

// errNoRoom is the error of a message whose descriptors have no room in the process.
var errNoRoom = fmt.Errorf("descriptors of a message are lost: %w", unix.EMFILE)

// receive receives a message with at most a number of descriptors. At the end it returns io.EOF. With
// errNoRoom it returns the length of the message, and no descriptor is open.
func (s socket) receive(buf []byte, maxFDs int) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	var rights, flags int
	err = eintr.Repeat(func() error {
		n, rights, flags, _, err = unix.Recvmsg(s.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("receive a message: %w", err)
	case n == 0:
		closeRights(oob[:rights]) // of an empty message, which is taken for the end
		return 0, nil, io.EOF
	case flags&unix.MSG_TRUNC != 0, maxFDs == 0 && (rights > 0 || flags&unix.MSG_CTRUNC != 0):
		closeRights(oob[:rights])
		return 0, nil, fmt.Errorf("receive a message: %w", unix.EMSGSIZE)
	case flags&unix.MSG_CTRUNC != 0:
		closeRights(oob[:rights])
		return n, nil, errNoRoom
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

func closeRights(oob []byte) { closeFDs(rightsOf(oob)) }

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
