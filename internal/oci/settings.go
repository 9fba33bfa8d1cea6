package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// SettingsPath is where the settings are.
const SettingsPath = "/etc/ublk-loop/oci.toml"

// Settings are the administrator's.
type Settings struct {
	// Runtimes are the programs behind ublk-NAME.
	Runtimes map[string]string `toml:"runtimes"`
	// Lists apply to every container for which no other lists are given. Without
	// a list there is no image that a container may have, or write to.
	Lists
	// Handlers and Owners are lists for the containers of one handler, and of one
	// owner of bundles, by his number.
	Handlers map[string]Lists `toml:"handlers"`
	Owners   map[string]Lists `toml:"owners"`
	// AllowedOverlays are the directories below which those may be that take
	// what a container writes. They must not be below AllowedImages: a
	// container could make its own image there.
	AllowedOverlays []string `toml:"allowed_overlays"`
	// TmpfsLimit is the largest tmpfs that takes what a container writes, 0 for an
	// eighth of the machine's memory.
	TmpfsLimit Size `toml:"tmpfs_limit"`
	// Socket is that of the server.
	Socket string `toml:"socket"`
	// AttachTimeout bounds how long a container waits for its device.
	AttachTimeout time.Duration `toml:"attach_timeout"`
	// SweepAfter is how long the hooks' mounts stay of which nobody has said
	// that the container has started: longer than it may take to create one.
	SweepAfter time.Duration `toml:"sweep_after"`
}

// ReadSettings reads the settings of a file. Without the file it returns the
// defaults; a key that it does not know is an error.
func ReadSettings(path string) (*Settings, error) {
	s := &Settings{Socket: client.DefaultSocket, AttachTimeout: 10 * time.Second, SweepAfter: time.Minute}
	meta, err := toml.DecodeFile(path, s)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("read %s: unknown key %q: %w", path, unknown[0], unix.EINVAL)
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

func (s *Settings) validate() error {
	for name, program := range s.Runtimes {
		if !filepath.IsAbs(program) {
			return fmt.Errorf("runtime %s: %q: not an absolute path: %w", name, program, unix.EINVAL)
		}
	}
	if err := errors.Join(s.validateLists(), checkDirs("allowed_overlays", s.AllowedOverlays)); err != nil {
		return err
	}
	for _, dir := range s.AllowedOverlays {
		for _, images := range s.allAllowed() {
			if isBelow(images, dir) || isBelow(dir, images) {
				return fmt.Errorf("allowed_overlays: %q: containers could write images of %q there: %w", dir, images, unix.EINVAL)
			}
		}
	}
	if s.AttachTimeout <= 0 {
		return fmt.Errorf("attach_timeout: %s: not a time to wait: %w", s.AttachTimeout, unix.EINVAL)
	}
	if s.SweepAfter <= 0 {
		return fmt.Errorf("sweep_after: %s: not a time to wait: %w", s.SweepAfter, unix.EINVAL)
	}
	return nil
}

// isBelow reports whether a path is a directory's, or below it.
func isBelow(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// Runtime returns the program behind ublk-NAME. NAME can be that of another runtime
// and a word of the administrator's: "runc-trusted".
func (s *Settings) Runtime(name string) string {
	plain, _, _ := strings.Cut(name, "-")
	for _, name := range []string{name, plain} {
		if program := s.Runtimes[name]; program != "" {
			return program
		}
	}
	return "/usr/bin/" + plain
}
