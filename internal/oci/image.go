package oci

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// OpenImage opens an image below one of the directories that the requester may use, with
// O_PATH (open(2)). The path below that directory must not contain links. It returns an
// error that wraps EINVAL if the path is not absolute and clean or leads to no regular file, and
// EPERM for writes to the image that the settings do not allow.
func (s *Settings) OpenImage(path string, d *Disk, who Requester) (*os.File, error) {
	if err := checkPath(path); err != nil {
		return nil, fmt.Errorf("image %q: %w", path, err)
	}
	if d.writesImage() && !s.mayWrite(path, who) {
		return nil, fmt.Errorf("%s: option rw: not below a directory of writable_images: %w", path, unix.EPERM)
	}
	return openInAll(s.lists(who, allowedImages), path, below.OpenRegular)
}

// MountOptions are the options for a mount that another program, containerd, makes.
type MountOptions struct {
	o      mountOptions
	fsType fsType
}

// ParseOptions parses a comma-separated list of mount options. An empty list stands for
// the defaults. It returns an error that wraps EINVAL for an option that a container must
// not ask for.
func ParseOptions(value string) (*MountOptions, error) {
	if value == "" {
		value = "ro"
	}
	o, err := parseOptions(value)
	if err != nil {
		return nil, fmt.Errorf("options %q: %w", value, err)
	}
	return &MountOptions{o: o}, nil
}

// ReadOnly reports whether the options make the mount read-only.
func (m *MountOptions) ReadOnly() bool { return m.o.readOnly }

// SetFileSystem makes For refuse all file systems but one: ext4, xfs, erofs or squashfs, or
// auto for any. It returns an error that wraps EINVAL for another name.
func (m *MountOptions) SetFileSystem(name string) error { return m.fsType.parse(name) }

// For detects the file system of a device, and returns its type and its options in the
// syntax of mount(8). It returns an error that wraps EMEDIUMTYPE for an unknown file
// system or one that SetFileSystem has ruled out, EROFS if the options ask for writes to a
// read-only file system, and EINVAL if the file system lacks an option. If the device does not answer in
// time, it returns the context's cause.
func (m *MountOptions) For(ctx context.Context, device io.ReaderAt) (fsType string, options []string, err error) {
	fs, err := m.fsType.probe(ctx, device)
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
