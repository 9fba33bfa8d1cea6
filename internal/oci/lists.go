package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lists are the directories below which images may be. A nil list is not given.
type Lists struct {
	AllowedImages []string `toml:"allowed_images"`
	// WritableImages is a part of the allowed images: those that a container may
	// write to.
	WritableImages []string `toml:"writable_images"`
}

// Handlers that are not the name of a runtime.
const (
	HandlerOCI         = "oci" // ublk-loop oci --runtime PATH
	HandlerHook        = "hook"
	HandlerSnapshotter = "snapshotter"
)

// Requester is whoever asks for an image.
type Requester struct {
	// Handler is the name of the runtime that this program stands in for, or one
	// of the constants.
	Handler string
	// Owner is the user who owns the bundle, nil if there is no bundle.
	Owner *uint32
}

// sections returns the lists that are given for a requester alone.
func (s *Settings) sections(who Requester) []Lists {
	sections := []Lists{s.Handlers[who.Handler]}
	if who.Owner != nil {
		sections = append(sections, s.Owners[strconv.FormatUint(uint64(*who.Owner), 10)])
	}
	return sections
}

// lists returns the lists of one kind that apply to a requester. An image has to be
// in each. The general list applies if no other does.
func (s *Settings) lists(who Requester, kind func(Lists) []string) [][]string {
	var lists [][]string
	for _, section := range s.sections(who) {
		if list := kind(section); list != nil {
			lists = append(lists, list)
		}
	}
	if lists == nil {
		lists = [][]string{kind(s.Lists)}
	}
	return lists
}

func allowedImages(l Lists) []string  { return l.AllowedImages }
func writableImages(l Lists) []string { return l.WritableImages }

// mayWrite reports whether the image at a path may be written to. The image is
// where its path says, or it is not found, because no link is followed.
func (s *Settings) mayWrite(path string, who Requester) bool {
	for _, list := range s.lists(who, writableImages) {
		if !slices.ContainsFunc(list, func(dir string) bool { return isBelow(dir, path) }) {
			return false
		}
	}
	return true
}

// openInAll opens an image that has to be in each of some lists.
func openInAll(lists [][]string, path string) (*os.File, error) {
	var image *os.File
	for _, list := range lists {
		f, err := openImage(list, path)
		if image != nil {
			_ = image.Close()
		}
		if err != nil {
			return nil, err
		}
		image = f
	}
	return image, nil
}

// validateLists refuses a list of relative paths, and one that would never apply.
func (s *Settings) validateLists() error {
	if err := s.Lists.validate(); err != nil {
		return err
	}
	for name, lists := range s.Handlers {
		if !s.isHandler(name) {
			return fmt.Errorf("handlers.%s: no runtime of this name, and not one of oci, hook, snapshotter: %w", name, unix.EINVAL)
		}
		if err := lists.validate(); err != nil {
			return fmt.Errorf("handlers.%s: %w", name, err)
		}
	}
	for owner, lists := range s.Owners {
		if number, err := strconv.ParseUint(owner, 10, 32); err != nil || strconv.FormatUint(number, 10) != owner {
			return fmt.Errorf("owners.%s: not the number of a user: %w", owner, unix.EINVAL)
		}
		if err := lists.validate(); err != nil {
			return fmt.Errorf("owners.%s: %w", owner, err)
		}
	}
	return nil
}

func (l *Lists) validate() error {
	for key, dirs := range map[string][]string{"allowed_images": l.AllowedImages, "writable_images": l.WritableImages} {
		if err := checkDirs(key, dirs); err != nil {
			return err
		}
	}
	return nil
}

// checkDirs refuses relative paths in a list.
func checkDirs(key string, dirs []string) error {
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("%s: %q: not an absolute path: %w", key, dir, unix.EINVAL)
		}
	}
	return nil
}

// isHandler reports whether a requester can have a handler of this name.
func (s *Settings) isHandler(name string) bool {
	runtime, _, _ := strings.Cut(name, "-")
	return s.Runtimes[name] != "" || slices.Contains([]string{"runc", "crun", HandlerOCI, HandlerHook, HandlerSnapshotter}, name) ||
		slices.Contains([]string{"runc", "crun"}, runtime)
}

// allAllowed returns the directories of images of all requesters.
func (s *Settings) allAllowed() []string {
	dirs := slices.Clone(s.AllowedImages)
	for _, sections := range []map[string]Lists{s.Handlers, s.Owners} {
		for _, lists := range sections {
			dirs = append(dirs, lists.AllowedImages...)
		}
	}
	return dirs
}
