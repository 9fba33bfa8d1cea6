package oci

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// prefix is the prefix of the annotations. imageAnnotation is the annotation that asks
// for a root directory.
const (
	prefix          = "dev.ublk-loop.rootfs."
	imageAnnotation = prefix + "image"
)

// rootfs is the root directory that a bundle asks for.
type rootfs struct {
	image   string // an absolute path
	fsType  fsType
	options mountOptions
	overlay overlay
	subdir  string // directory in the image, "" for the image's root
	limits  []ioLimit

	disk Disk // its ReadOnly is that of options
}

// annotation is an annotation without its prefix.
type annotation struct {
	name, value string // value is the default, until one is given
	parse       func(value string) error
}

// annotations lists all annotations, in the order in which they are parsed.
func (r *rootfs) annotations() []annotation {
	image := []annotation{
		{"image", "", r.parseImage},
		{"fstype", "auto", r.fsType.parse},
		{"options", "ro", r.parseOptions},
		{"overlay", "none", r.parseOverlay},
		{"subdir", "/", r.parseSubdir},
		{"io.rbps", unlimited, r.limitBytes("throttleReadBpsDevice")},
		{"io.wbps", unlimited, r.limitBytes("throttleWriteBpsDevice")},
		{"io.riops", unlimited, r.limitOperations("throttleReadIOPSDevice")},
		{"io.wiops", unlimited, r.limitOperations("throttleWriteIOPSDevice")},
	}
	return append(image, r.disk.settings()...)
}

// parseRootfs parses the annotations. It returns an error that wraps EINVAL for an
// invalid value and for an unknown key, because its author expects an effect.
func parseRootfs(annotations map[string]string) (*rootfs, error) {
	r := &rootfs{}
	list := r.annotations()
	for key, value := range annotations {
		name, ours := strings.CutPrefix(key, prefix)
		if !ours {
			continue
		}
		i := slices.IndexFunc(list, func(a annotation) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("annotation %s: unknown: %w", key, unix.EINVAL)
		}
		list[i].value = value
	}
	for _, a := range list {
		if err := a.parse(a.value); err != nil {
			return nil, fmt.Errorf("annotation %s%s: %q: %w", prefix, a.name, a.value, err)
		}
	}
	if name, err := r.disk.check(); err != nil {
		return nil, fmt.Errorf("annotation %s%s: %w", prefix, name, err)
	}
	return r, nil
}

func (r *rootfs) parseImage(value string) error {
	r.image = value
	return checkPath(value)
}

// checkPath refuses a path that is not absolute and clean.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsRune(path, 0) {
		return fmt.Errorf("not a plain absolute path: %w", unix.EINVAL)
	}
	// JSON has this in place of what is not UTF-8, so that the path would be another.
	if strings.ContainsRune(path, utf8.RuneError) {
		return fmt.Errorf("not UTF-8: %w", unix.EINVAL)
	}
	return nil
}

func (r *rootfs) parseOptions(value string) error {
	var err error
	r.options, err = parseOptions(value)
	r.disk.ReadOnly = r.options.readOnly
	return err
}

func (r *rootfs) parseOverlay(value string) error {
	var err error
	if r.overlay, err = parseOverlay(value); err != nil {
		return err
	}
	if r.overlay.kind != "" && !r.options.readOnly {
		return fmt.Errorf("no overlay is possible with the option rw: %w", unix.EINVAL)
	}
	return nil
}

func (r *rootfs) parseSubdir(value string) error {
	if value == "/" {
		return nil
	}
	if err := checkPath(value); err != nil {
		return err
	}
	r.subdir = value[1:]
	return nil
}
