package oci

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// prefix is that of the annotations; the one of the image is what asks for a
// root directory at all.
const (
	prefix          = "dev.ublk-loop.rootfs."
	imageAnnotation = prefix + "image"
)

// rootfs is what a bundle asks for.
type rootfs struct {
	image   string // an absolute path
	fsType  string // "" for what the image holds
	options mountOptions
	overlay overlay
	subdir  string // in the image, "" for all of it
}

// fsTypes are the file systems that there are.
var fsTypes = []string{ext4, xfs, erofs, squashfs}

// parseRootfs returns what annotations ask for. It returns an error that wraps
// EINVAL for a value that is none, and for a key that is unknown: whoever
// wrote it expects something of it.
func parseRootfs(annotations map[string]string) (*rootfs, error) {
	r := &rootfs{}
	values := map[string]string{"options": "ro", "fstype": "auto", "overlay": "none", "subdir": "/"}
	for key, value := range annotations {
		name, ours := strings.CutPrefix(key, prefix)
		if _, known := values[name]; ours && !known && name != "image" {
			return nil, fmt.Errorf("annotation %s: unknown: %w", key, unix.EINVAL)
		}
		if ours {
			values[name] = value
		}
	}
	for _, p := range []struct {
		name  string
		parse func(string) error
	}{{"image", r.parseImage}, {"fstype", r.parseFSType}, {"options", r.parseOptions}, {"overlay", r.parseOverlay}, {"subdir", r.parseSubdir}} {
		if err := p.parse(values[p.name]); err != nil {
			return nil, fmt.Errorf("annotation %s%s: %q: %w", prefix, p.name, values[p.name], err)
		}
	}
	return r, nil
}

func (r *rootfs) parseImage(value string) error {
	r.image = value
	return checkPath(value)
}

// checkPath refuses what is not the plain absolute name of something.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsRune(path, 0) {
		return fmt.Errorf("not a plain absolute path: %w", unix.EINVAL)
	}
	return nil
}

func (r *rootfs) parseFSType(value string) error {
	if value == "auto" {
		return nil
	}
	if !slices.Contains(fsTypes, value) {
		return fmt.Errorf("not one of auto, %s: %w", strings.Join(fsTypes, ", "), unix.EINVAL)
	}
	r.fsType = value
	return nil
}

func (r *rootfs) parseOptions(value string) error {
	var err error
	r.options, err = parseOptions(value)
	return err
}

func (r *rootfs) parseOverlay(value string) error {
	var err error
	if r.overlay, err = parseOverlay(value); err != nil {
		return err
	}
	if r.overlay.kind != "" && !r.options.readOnly {
		return fmt.Errorf("the image itself is written to, with the option rw: %w", unix.EINVAL)
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
