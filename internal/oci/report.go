package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/rawname"
)

// Report writes the error of a call of the runtime to the runtime's log, where engines look
// for it, and returns it in words that no engine takes for another failure.
func Report(args []string, err error) error {
	c := parseCall(args)
	return c.report(err)
}

// report is Report for a parsed call. The caller prints the error, so that an unwritable log
// does not matter.
func (c *call) report(err error) error {
	err = Reword(err)
	c.writeLog(err)
	return err
}

// writeLog appends an error to the log, if that is a file.
func (c *call) writeLog(err error) {
	path := strings.TrimPrefix(c.log, "file:") // crun's form of a path
	if path == "" || strings.HasPrefix(path, "journald:") || strings.HasPrefix(path, "syslog:") {
		return
	}
	f, openErr := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if openErr != nil {
		return
	}
	defer func() { _ = f.Close() }()
	now := time.Now().Format(time.RFC3339)
	if c.logFormat != "json" {
		_, _ = fmt.Fprintf(f, "time=%q level=error msg=%q\n", now, err.Error())
		return
	}
	_ = json.NewEncoder(f).Encode(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{"error", rawname.Error(err), now})
}

// engineWords replaces the kernel's words for some errors. podman searches a runtime's
// messages for these words, takes the error for one of the container's command, and exits
// with 126 or 127 (getOCIRuntimeError in libpod/oci_util.go).
var engineWords = strings.NewReplacer(
	"no such file or directory", "not there",
	"permission denied", "access refused",
	"operation not permitted", "not allowed",
	"executable file not found in", "no program in",
)

// reworded is an error with replaced words.
type reworded struct{ err error }

// Reword returns an error with the same meaning, in words that no engine takes for
// another failure. It returns nil for nil.
func Reword(err error) error {
	if err == nil {
		return nil
	}
	return &reworded{err}
}

// longestError is the maximum length of an error's text. Annotations can have megabytes, and each
// engine keeps the text of a failed start.
const longestError = 4096

// Error implements error. It leaves out the middle of a long text, whose start names the setting and
// whose end says what is wrong.
func (w *reworded) Error() string {
	text := engineWords.Replace(rawname.Error(w.err))
	if len(text) <= longestError {
		return text
	}
	return text[:longestError/2] + " … " + text[len(text)-longestError/2:]
}

// Unwrap returns the original error.
func (w *reworded) Unwrap() error { return w.err }
