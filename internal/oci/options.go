package oci

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the options for mounting a file system.
type mountOptions struct {
	readOnly bool
	flags    uintptr  // without read-only
	special  []string // options of the file system
}

// optionFlags are the options of all file systems. nodev, nosuid and noexec are not among
// them: crun, and runc for a read-only root, mount the container's root again without
// them. The bundle's noNewPrivileges and the device cgroup remain in force.
var optionFlags = map[string]uintptr{
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
}

// specialOptions are the options of particular file systems. None of them lets an image
// do harm outside of its container, as errors=panic would.
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
	// Until the runtime makes its own mount, the image's device nodes are unusable.
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
		// The image's superblock may ask for a panic.
		if !slices.Contains(data, errorsContinue) {
			add(errorsReadOnly)
		}
		if o.readOnly && fs.dirty {
			add("noload") // a read-only mount cannot replay the journal
		}
	case xfs:
		// Copies of an image have the same UUID, and each container attaches its own
		// copy.
		add("nouuid")
	}
	flags := o.flags
	if o.readOnly {
		flags |= unix.MS_RDONLY
	}
	return flags, strings.Join(data, ","), nil
}
