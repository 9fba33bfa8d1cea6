package top

import (
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/report"
)

// newScreen returns a function that shows a text. On a terminal each text replaces the
// last one; otherwise it follows below.
func newScreen(out io.Writer) func(text string) error {
	before, between := "", "\n"
	arrange := func(text string) string { return text }
	if f, ok := out.(*os.File); ok && report.IsTerminal(f) {
		before, between = clearScreen, ""
		arrange = func(text string) string {
			rows, columns := terminalSize(f)
			return onScreen(text, rows, columns)
		}
	}
	return func(text string) error {
		_, err := io.WriteString(out, before+arrange(text))
		before = between
		return err
	}
}

// terminalSize returns the size of a terminal.
func terminalSize(f *os.File) (rows, columns int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return 24, 80
	}
	return int(size.Row), int(size.Col)
}

// These are control sequences of terminals (ECMA-48).
const (
	clearScreen  = "\x1b[2J"
	cursorHome   = "\x1b[H"
	clearLine    = "\x1b[K" // from the cursor to the end of the line
	clearBelow   = "\x1b[J"
	reservedRows = 1 // for the cursor
)

// onScreen returns the output that replaces a terminal's content with text, cut to the
// terminal's size.
func onScreen(text string, rows, columns int) string {
	var b strings.Builder
	b.WriteString(cursorHome)
	lines := slices.Collect(strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n"))
	for _, line := range lines[:min(len(lines), max(rows-reservedRows, 1))] {
		runes := []rune(line)
		b.WriteString(string(runes[:min(len(runes), columns)]) + clearLine + "\r\n")
	}
	b.WriteString(clearBelow)
	return b.String()
}
