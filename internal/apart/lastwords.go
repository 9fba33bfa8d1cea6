package apart

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// lastWords is the standard error of the process. It normally stays empty, because the process has no
// log. If its program panics, Go's runtime says there why.
type lastWords struct {
	fd   int // the end of a pipe to read from
	once sync.Once
	text string
}

// maxWords bounds what is read from the process, which may be hostile, and maxReason each part of it that is
// in an error.
const (
	maxWords  = 64 << 10
	maxReason = 200
)

// newLastWords also returns the end of the pipe for the process. A full pipe takes no more, and
// does not wait, so that a long message does not keep the process from its end.
func newLastWords() (*lastWords, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return &lastWords{fd: fds[0]}, os.NewFile(uintptr(fds[1]), "last words"), nil
}

// reason returns why the process has ended, as far as it said. The process must have ended.
func (l *lastWords) reason() string {
	l.once.Do(func() {
		buf := make([]byte, maxWords)
		n, err := unix.Read(l.fd, buf)
		_ = unix.Close(l.fd)
		if err == nil {
			l.text = reasonIn(string(buf[:n]))
		}
	})
	return l.text
}

// frame is the place of a call in what Go's runtime prints.
var frame = regexp.MustCompile(`(?m)^\t(\S+\.go:\d+)`)

// reasonIn returns the first line of a message of Go's runtime, with the place in the source that it was
// about. The result is short and has only printable characters, whatever the message has.
func reasonIn(text string) string {
	line, stack, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = printable(line)
	for _, place := range frame.FindAllStringSubmatch(stack, -1) {
		if !strings.Contains(place[1], "/src/runtime/") && !strings.HasPrefix(place[1], "runtime/") {
			return line + " at " + printable(filepath.Base(place[1]))
		}
	}
	return line
}

// printable returns the first maxReason bytes of a text, with escapes for what is not printable.
func printable(text string) string {
	quoted := strconv.QuoteToGraphic(text[:min(len(text), maxReason)])
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
