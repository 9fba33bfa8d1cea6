package oci

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenImage finds an image (O_PATH in open(2)) below one of the directories that the
// requester may use, with no link on the way from there. It returns an error that
// wraps EINVAL for what is not a regular file, EPERM for one that is not to be
// written to.
func (s *Settings) OpenImage(path string, o *MountOptions, who Requester) (*os.File, error) {
	return s.openImage(path, &o.o, who)
}

func (s *Settings) openImage(path string, o *mountOptions, who Requester) (*os.File, error) {
	if !o.readOnly && !s.mayWrite(path, who) {
		return nil, fmt.Errorf("%s: option rw: below no directory of writable_images: %w", path, unix.EPERM)
	}
	return openInAll(s.lists(who, allowedImages), path)
}

// MountOptions are how an image is to be mounted by somebody else: containerd.
type MountOptions struct{ o mountOptions }

// ParseOptions reads a comma-separated list of the options that a container may
// ask for, "" for the defaults. It returns an error that wraps EINVAL for
// others.
func ParseOptions(value string) (*MountOptions, error) {
	if value == "" {
		value = "ro"
	}
	o, err := parseOptions(value)
	if err != nil {
		return nil, fmt.Errorf("options %q: %w", value, err)
	}
	return &MountOptions{o}, nil
}

// ReadOnly reports whether the image is not to be written to.
func (m *MountOptions) ReadOnly() bool { return m.o.readOnly }

// For looks what a device holds, and returns the type of the file system and
// its options in the words of mount(8). It returns an error that wraps
// EMEDIUMTYPE for none that is known, EROFS for one that cannot be written to,
// EINVAL for one that lacks an option.
func (m *MountOptions) For(device io.ReaderAt) (fsType string, options []string, err error) {
	fs, err := probe(device)
	if err != nil {
		return "", nil, err
	}
	flags, data, err := m.o.forFS(fs)
	if err != nil {
		return "", nil, err
	}
	for word, flag := range optionFlags {
		if flags&flag != 0 {
			options = append(options, word)
		}
	}
	slices.Sort(options)
	if data != "" {
		options = append(options, strings.Split(data, ",")...)
	}
	mode := "rw"
	if flags&unix.MS_RDONLY != 0 {
		mode = "ro"
	}
	return fs.kind, append([]string{mode}, options...), nil
}
