package keysource

import (
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
func askPassphrase(prompt string) (*transfer.Secret, error) {
	tty, err := os.OpenFile(terminalPath, os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer func() { _ = tty.Close() }()
	if _, err := io.WriteString(tty, prompt); err != nil {
		return nil, err
	}
	return readHidden(tty)
}

// readHidden reads a line from a terminal without echo. It restores the terminal before
// it returns, also after an interrupt.
func readHidden(tty *os.File) (*transfer.Secret, error) {
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
	return readLine(fd)
}

// interruptKey is Ctrl-C.
const interruptKey = 3

// readLine reads a line, and removes its end.
func readLine(fd int) (*transfer.Secret, error) {
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
