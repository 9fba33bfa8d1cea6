package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/oci/below"
)

// overlay describes where a container's writes go if the image is read-only.
type overlay struct {
	kind string // "", overlayTmpfs or overlayDir
	size uint64 // of a tmpfs, in bytes
	dir  string // an absolute path
}

const (
	overlayTmpfs = "tmpfs"
	overlayDir   = "dir"
)

func parseOverlay(value string) (overlay, error) {
	if value == "none" {
		return overlay{}, nil
	}
	kind, rest, _ := strings.Cut(value, ":")
	switch kind {
	case overlayTmpfs:
		size, err := parseBytes(rest)
		return overlay{kind: kind, size: size}, err
	case overlayDir:
		return overlay{kind: kind, dir: rest}, checkPath(rest)
	}
	return overlay{}, fmt.Errorf("not one of none, tmpfs:SIZE, dir:PATH: %w", unix.EINVAL)
}

// openOverlayDir opens a directory for writes of an overlay, with O_PATH (open(2)). It
// returns an error that wraps EINVAL if the directory is inside of another overlay's
// directory, because a container writes there. It returns an error that wraps EPERM if
// other users can pass the directory.
func openOverlayDir(dirs []string, path string) (*os.File, error) {
	for _, dir := range dirs {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		for _, name := range strings.Split(rel, "/") {
			if name == upperName || name == workName {
				return nil, fmt.Errorf("%s: the path could be inside of another overlay because it contains %q: %w", path, name, unix.EINVAL)
			}
		}
	}
	dir, err := below.OpenPath(dirs, path, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(dir); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}
