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

// Lists are the directories of images, and the keys of images. A nil list means that the
// settings do not have the list.
type Lists struct {
	AllowedImages []string `toml:"allowed_images"`
	// WritableImages lists the directories of those allowed images that a container may
	// write to.
	WritableImages []string `toml:"writable_images"`
	// AllowedKeyFiles lists the directories of key files, and AllowedKeyringKeys the
	// descriptions of keys in the keyrings, that encrypted images may have.
	AllowedKeyFiles    []string `toml:"allowed_key_files"`
	AllowedKeyringKeys []string `toml:"allowed_keyring_keys"`
	// VerityImages lists the directories of images that must be checked with verity, and
	// SignedImages those of images whose root hash must also have a signature.
	VerityImages []string `toml:"verity_images"`
	SignedImages []string `toml:"signed_images"`
}

// These handlers are not named for a runtime.
const (
	HandlerOCI         = "oci" // ublk-loop oci --runtime PATH
	HandlerHook        = "hook"
	HandlerSnapshotter = "snapshotter"
)

// Requester identifies who asks for an image.
type Requester struct {
	// Handler is the name of the runtime that this program stands in for, or one of the
	// constants.
	Handler string
	// Owners are the users who can change the bundle, nil if there is no bundle.
	Owners []uint32
}

// lists returns the lists of one kind that apply to a requester. An image must be in each
// list. If several users can change the bundle, the lists of each apply, because any of them may
// have written what is asked for.
func (s *Settings) lists(who Requester, kind func(Lists) []string) (lists [][]string) {
	if len(who.Owners) == 0 {
		return s.listsOf(kind, s.Handlers[who.Handler])
	}
	for _, owner := range who.Owners {
		own := s.Owners[strconv.FormatUint(uint64(owner), 10)]
		lists = append(lists, s.listsOf(kind, s.Handlers[who.Handler], own)...)
	}
	return lists
}

// listsOf returns the lists of one kind in sections. The general list applies only if no other
// list does.
func (s *Settings) listsOf(kind func(Lists) []string, sections ...Lists) (lists [][]string) {
	for _, section := range sections {
		if list := kind(section); list != nil {
			lists = append(lists, list)
		}
	}
	if lists == nil {
		lists = [][]string{kind(s.Lists)}
	}
	return lists
}

func allowedImages(l Lists) []string   { return l.AllowedImages }
func writableImages(l Lists) []string  { return l.WritableImages }
func allowedKeyFiles(l Lists) []string { return l.AllowedKeyFiles }
func allowedKeys(l Lists) []string     { return l.AllowedKeyringKeys }
func verityImages(l Lists) []string    { return l.VerityImages }
func signedImages(l Lists) []string    { return l.SignedImages }

// mayWrite reports whether the settings allow writes to the image at a path. The path
// alone decides, because below.OpenPath follows no link.
func (s *Settings) mayWrite(path string, who Requester) bool {
	for _, list := range s.lists(who, writableImages) {
		if !slices.ContainsFunc(list, func(dir string) bool { return isBelow(dir, path) }) {
			return false
		}
	}
	return true
}

// openInAll opens a file that must be in each of the lists.
func openInAll(lists [][]string, path string, open func(dirs []string, path string) (*os.File, error)) (*os.File, error) {
	var image *os.File
	for _, list := range lists {
		f, err := open(list, path)
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

// validateLists refuses lists with relative paths, and lists that could never apply.
func (s *Settings) validateLists() error {
	if err := s.Lists.validate(); err != nil {
		return err
	}
	for name, lists := range s.Handlers {
		if !s.isHandler(name) {
			return fmt.Errorf("handlers.%s: neither a runtime nor one of oci, hook, snapshotter: %w", name, unix.EINVAL)
		}
		if err := lists.validate(); err != nil {
			return fmt.Errorf("handlers.%s: %w", name, err)
		}
	}
	for owner, lists := range s.Owners {
		if number, err := strconv.ParseUint(owner, 10, 32); err != nil || strconv.FormatUint(number, 10) != owner {
			return fmt.Errorf("owners.%s: not a user number: %w", owner, unix.EINVAL)
		}
		if err := lists.validate(); err != nil {
			return fmt.Errorf("owners.%s: %w", owner, err)
		}
	}
	return nil
}

func (l *Lists) validate() error {
	for key, dirs := range map[string][]string{
		"allowed_images": l.AllowedImages, "writable_images": l.WritableImages, "allowed_key_files": l.AllowedKeyFiles,
		"verity_images": l.VerityImages, "signed_images": l.SignedImages,
	} {
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

// isHandler reports whether a requester can have a handler with this name.
func (s *Settings) isHandler(name string) bool {
	runtime, _, _ := strings.Cut(name, "-")
	return s.Runtimes[name] != "" || slices.Contains([]string{"runc", "crun", HandlerOCI, HandlerHook, HandlerSnapshotter}, name) ||
		slices.Contains([]string{"runc", "crun"}, runtime)
}

// allAllowed returns the directories of all requesters' images.
func (s *Settings) allAllowed() []string {
	dirs := slices.Clone(s.AllowedImages)
	for _, sections := range []map[string]Lists{s.Handlers, s.Owners} {
		for _, lists := range sections {
			dirs = append(dirs, lists.AllowedImages...)
		}
	}
	return dirs
}
