package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
)

// SettingsPath is the path of the settings.
const SettingsPath = "/etc/ublk-loop/oci.toml"

// Settings are the administrator's settings.
type Settings struct {
	// Runtimes maps NAME to the program that ublk-NAME executes.
	Runtimes map[string]string `toml:"runtimes"`
	// Lists apply to every container that has no other lists. Without a list, containers
	// can have no image, or can write to no image.
	Lists
	// Handlers and Owners have other lists, for the containers of a handler and for the
	// bundles of an owner, by his number.
	Handlers map[string]Lists `toml:"handlers"`
	Owners   map[string]Lists `toml:"owners"`
	// AllowedOverlays are the directories that containers' writes may go to. They must be
	// neither below nor above AllowedImages and AllowedStores, because a container could make
	// an image or a store there.
	AllowedOverlays []string `toml:"allowed_overlays"`
	// AllowedStores are the directories of stores for containers' changes that stay, and
	// TransientStores is the directory for changes that end with the container.
	AllowedStores   []string `toml:"allowed_stores"`
	TransientStores string   `toml:"transient_stores"`
	// TmpfsLimit is the maximum size of a tmpfs for containers' writes. 0 stands for an
	// eighth of the machine's memory.
	TmpfsLimit Size `toml:"tmpfs_limit"`
	// Socket is the path of the server's socket.
	Socket string `toml:"socket"`
	// AttachTimeout bounds the time that a container waits for its device.
	AttachTimeout time.Duration `toml:"attach_timeout"`
	// SweepAfter is the age at which Sweep removes a hook's mount whose container is not
	// known to have started. It must exceed the time to create a container.
	SweepAfter time.Duration `toml:"sweep_after"`
}

// ReadSettings reads the settings from a file. Without the file it returns the defaults.
// An unknown key is an error.
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
	if err := errors.Join(s.validateLists(), checkDirs("allowed_overlays", s.AllowedOverlays), checkDirs("allowed_stores", s.AllowedStores)); err != nil {
		return err
	}
	if err := s.checkOverlays(); err != nil {
		return err
	}
	if s.TransientStores != "" && !filepath.IsAbs(s.TransientStores) {
		return fmt.Errorf("transient_stores: %q: not an absolute path: %w", s.TransientStores, unix.EINVAL)
	}
	if s.AttachTimeout <= 0 {
		return fmt.Errorf("attach_timeout: %s: not a positive time: %w", s.AttachTimeout, unix.EINVAL)
	}
	if s.SweepAfter <= 0 {
		return fmt.Errorf("sweep_after: %s: not a positive time: %w", s.SweepAfter, unix.EINVAL)
	}
	return nil
}

// checkOverlays refuses a directory for containers' writes in which they could make an image or a
// store.
func (s *Settings) checkOverlays() error {
	for _, dir := range s.AllowedOverlays {
		for _, other := range slices.Concat(s.allAllowed(), s.AllowedStores) {
			if isBelow(other, dir) || isBelow(dir, other) {
				return fmt.Errorf("allowed_overlays: %q: containers could make images or stores for %q there: %w", dir, other, unix.EINVAL)
			}
		}
	}
	return nil
}

// isBelow reports whether path is dir or below it.
func isBelow(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// Runtime returns the program that ublk-NAME executes. NAME can be the name of another
// runtime with a suffix of the administrator's: "runc-trusted".
func (s *Settings) Runtime(name string) string {
	plain, _, _ := strings.Cut(name, "-")
	for _, name := range []string{name, plain} {
		if program := s.Runtimes[name]; program != "" {
			return program
		}
	}
	return "/usr/bin/" + plain
}
