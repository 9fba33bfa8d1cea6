package oci

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are how a file system is to be mounted.
type mountOptions struct {
	readOnly bool
	flags    uintptr  // but for read-only
	special  []string // of the file system's own
}

// optionFlags are the options that all file systems have. Not nodev, nosuid and
// noexec: crun, and runc for a read-only root, mount the container's root anew
// without. noNewPrivileges of the bundle and the device cgroup stay.
var optionFlags = map[string]uintptr{
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
}

// specialOptions are those of some file systems. None lets an image do harm
// outside of its container: errors=panic would.
var specialOptions = map[string][]string{
	"discard": {ext4, xfs}, "nodiscard": {ext4, xfs},
	"noload": {ext4}, errorsContinue: {ext4}, errorsReadOnly: {ext4},
	"nouuid": {xfs}, "norecovery": {xfs},
}

const (
	errorsContinue = "errors=continue"
	errorsReadOnly = "errors=remount-ro"
)

func parseOptions(value string) (mountOptions, error) {
	// Until the runtime has its own mount of it, an image has no device nodes.
	o := mountOptions{readOnly: true, flags: unix.MS_NODEV}
	given := strings.Split(value, ",")
	if slices.Contains(given, "rw") {
		if slices.Contains(given, "ro") {
			return o, fmt.Errorf("both ro and rw: %w", unix.EINVAL)
		}
		o.readOnly = false
	}
	for _, name := range given {
		flag, isFlag := optionFlags[name]
		_, isSpecial := specialOptions[name]
		switch {
		case name == "ro", name == "rw":
		case isFlag:
			o.flags |= flag
		case isSpecial:
			o.special = append(o.special, name)
		default:
			return o, fmt.Errorf("option %q is not allowed: %w", name, unix.EINVAL)
		}
	}
	return o, nil
}

// forFS returns the flags and the data of mount(2) for a file system.
func (o *mountOptions) forFS(fs fileSystem) (uintptr, string, error) {
	if !o.readOnly && (fs.kind == erofs || fs.kind == squashfs) {
		return 0, "", fmt.Errorf("%s cannot be written to: %w", fs.kind, unix.EROFS)
	}
	data := slices.Clone(o.special)
	for _, name := range data {
		if !slices.Contains(specialOptions[name], fs.kind) {
			return 0, "", fmt.Errorf("%s has no option %s: %w", fs.kind, name, unix.EINVAL)
		}
	}
	add := func(name string) {
		if !slices.Contains(data, name) {
			data = append(data, name)
		}
	}
	switch fs.kind {
	case ext4:
		// An image may ask for a panic, in its superblock.
		if !slices.Contains(data, errorsContinue) {
			add(errorsReadOnly)
		}
		if o.readOnly && fs.dirty {
			add("noload") // the journal cannot be replayed
		}
	case xfs:
		// Copies of an image have the same, and each container attaches its own.
		add("nouuid")
	}
	flags := o.flags
	if o.readOnly {
		flags |= unix.MS_RDONLY
	}
	return flags, strings.Join(data, ","), nil
}
