package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// errNoTerminal is returned by askPassphrase if the process has no terminal.
var errNoTerminal = errors.New("no passphrase, and no terminal to ask for it")

// terminalPath leads to the process's terminal, independently of standard input.
const terminalPath = "/dev/tty"

// maxLine is the maximum length of a line from a terminal (N_TTY_BUF_SIZE).
const maxLine = 4096

// askPassphrase asks for a line that the terminal does not show.
func askPassphrase(ctx context.Context, prompt string) (*transfer.Secret, error) {
	tty, err := os.OpenFile(terminalPath, os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer func() { _ = tty.Close() }()
	if _, err := io.WriteString(tty, prompt); err != nil {
		return nil, err
	}
	return readHidden(ctx, tty)
}

// isStream reports whether a file is a pipe, a socket or a regular file, which a user may have
// written a passphrase to.
func isStream(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFIFO || kind == unix.S_IFSOCK || kind == unix.S_IFREG
}

// readPassphrase reads a line, and no byte of the next one. It removes the end of the line.
func readPassphrase(f io.Reader) (*transfer.Secret, error) {
	line, err := transfer.NewSecret(maxLine)
	if err != nil {
		return nil, err
	}
	n := 0
	for ; n < maxLine; n++ {
		if _, err = io.ReadFull(f, line.Bytes()[n:n+1]); err != nil || line.Bytes()[n] == '\n' {
			break
		}
	}
	switch {
	case n == maxLine:
		err = fmt.Errorf("more than %d bytes: %w", maxLine, unix.EINVAL)
	case err != nil && !errors.Is(err, io.EOF):
		err = errnoOf(err)
	case n == 0:
		err = fmt.Errorf("empty: %w", unix.EINVAL)
	default:
		line.Truncate(n)
		return line, nil
	}
	line.Close()
	return nil, fmt.Errorf("passphrase of standard input: %w", err)
}

// readHidden reads a line from a terminal without echo. It restores the terminal before
// it returns, also after an interrupt or when the context is done.
func readHidden(ctx context.Context, tty *os.File) (*transfer.Secret, error) {
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoTerminal, err)
	}
	hidden := *before
	// Without ISIG an interrupt is a character, which ends the line (VEOL).
	hidden.Lflag = hidden.Lflag&^(unix.ECHO|unix.ISIG) | unix.ICANON | unix.ECHONL
	hidden.Iflag |= unix.ICRNL
	hidden.Cc[unix.VEOL] = interruptKey
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return nil, fmt.Errorf("switch echo off: %w", err)
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETSF, before) }()
	return readLine(ctx, fd)
}

// awaitLine waits until a terminal has a line, or its user has gone. It returns the cause when the
// context is done.
func awaitLine(ctx context.Context, fd int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer func() {
		if stop() {
			_ = w.Close()
		}
		_ = r.Close()
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	err = eintr.Repeat(func() error {
		_, err := unix.Poll(fds, -1)
		return err
	})
	if err == nil && fds[1].Revents != 0 {
		err = context.Cause(ctx)
	}
	return err
}

// interruptKey is Ctrl-C.
const interruptKey = 3

// readLine reads a line, and removes its end.
func readLine(ctx context.Context, fd int) (*transfer.Secret, error) {
	if err := awaitLine(ctx, fd); err != nil {
		return nil, err
	}
	line, err := transfer.NewSecret(maxLine)
	if err != nil {
		return nil, err
	}
	var n int
	err = eintr.Repeat(func() (err error) {
		n, err = unix.Read(fd, line.Bytes())
		return err
	})
	switch {
	case err != nil:
	case n == 0, line.Bytes()[n-1] == interruptKey:
		err = report.ErrInterrupted
	case line.Bytes()[n-1] == '\n':
		line.Truncate(n - 1)
		return line, nil
	default: // Ctrl-D ended the line
		line.Truncate(n)
		return line, nil
	}
	line.Close()
	return nil, err
}
