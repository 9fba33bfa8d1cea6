package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// journalSocket is where journald takes entries in its native protocol.
const journalSocket = "/run/systemd/journal/socket"

// OpenJournal connects to the journal. It returns an error that wraps ErrNotRunning if
// there is none.
func OpenJournal() (*os.File, error) { return openJournal(journalSocket) }

func openJournal(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		return os.NewFile(uintptr(fd), path), nil
	}
	_ = unix.Close(fd)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("the journal: %w", ErrNotRunning)
	}
	return nil, fmt.Errorf("connect to %s: %w", path, err)
}

// Field is a field of an entry. systemd.journal-fields(7) lists the usual names.
type Field struct{ Name, Value string }

// Log writes an entry. It loses the entry if the journal does not take it at once, because
// the journal may be on the caller's own device.
func Log(journal *os.File, fields []Field) error {
	conn, err := journal.SyscallConn()
	if err != nil {
		return err
	}
	text := encodeEntry(fields)
	var sendErr error
	err = conn.Control(func(fd uintptr) {
		sendErr = unix.Sendto(int(fd), text, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	})
	if err != nil {
		return err
	}
	return sendErr
}

// encodeEntry returns an entry in journald's native protocol: lines of NAME=VALUE, or for a
// value with line feeds NAME, its length in 8 bytes, and the value.
func encodeEntry(fields []Field) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		b.WriteString(f.Name)
		if strings.Contains(f.Value, "\n") {
			b.WriteByte('\n')
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(f.Value))))
		} else {
			b.WriteByte('=')
		}
		b.WriteString(f.Value)
		b.WriteByte('\n')
	}
	return b.Bytes()
}
