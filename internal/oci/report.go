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

// report writes an error to the runtime's log, where engines look for it. The error also
// goes to standard error, so that an unwritable log does not matter.
func (c *call) report(err error) {
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
	}{"error", rawname.Text(err.Error()), now})
}
