// Package modprobe loads the kernel's ublk driver. The kernel does not load the driver by
// itself, because its control device has no alias.
package modprobe

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// Loader loads the driver.
type Loader struct {
	Control   string   // the driver's control device, which exists while the driver is loaded
	Programs  []string // paths of modprobe(8), of which the first one that exists counts
	OSRelease []string // paths of os-release(5), likewise
}

// Default returns the loader of this machine.
func Default() *Loader {
	return &Loader{
		Control:   "/dev/ublk-control",
		Programs:  []string{"/usr/sbin/modprobe", "/sbin/modprobe"},
		OSRelease: []string{"/etc/os-release", "/usr/lib/os-release"},
	}
}

// Load loads the driver unless it is loaded. Without root it does nothing. It returns an
// error that wraps ublk.ErrNoDriver if the driver cannot be loaded. The hint then names the
// distribution's package.
func (l *Loader) Load() error {
	if os.Geteuid() != 0 || l.isLoaded() {
		return nil
	}
	program := ""
	for _, path := range l.Programs {
		if unix.Access(path, unix.X_OK) == nil {
			program = path
			break
		}
	}
	if program == "" {
		return hint.Add(fmt.Errorf("%w, and there is no modprobe", ublk.ErrNoDriver), "load it outside of the container: modprobe ublk_drv")
	}
	cmd := exec.Command(program, "ublk_drv")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &out, []string{"LANG=C"}
	err := cmd.Run()
	switch {
	case err != nil:
		return l.explain(err, out.String())
	case !l.isLoaded():
		return hint.Add(fmt.Errorf("%w: modprobe succeeds, but %s does not exist", ublk.ErrNoDriver, l.Control), "a container needs the device: --device %s", l.Control)
	}
	return nil
}

func (l *Loader) isLoaded() bool { return unix.Access(l.Control, unix.F_OK) == nil }

// explain returns the error of modprobe, with a hint.
func (l *Loader) explain(err error, said string) error {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if line == "" {
		line = "modprobe: " + err.Error()
	}
	err = fmt.Errorf("%w: %s", ublk.ErrNoDriver, line)
	switch {
	case strings.Contains(said, "not found"):
		return hint.Add(err, "%s", l.packageHint())
	case strings.Contains(said, "Key was rejected"):
		return hint.Add(err, "secure boot accepts only modules that the distribution has signed")
	}
	return hint.Add(err, "dmesg may say why")
}
