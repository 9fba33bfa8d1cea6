package oci

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay is what takes the writes that an image does not.
type overlay struct {
	kind string // "", overlayTmpfs or overlayDir
	size string // of a tmpfs, as tmpfs(5) takes it
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
		if !isSize(rest) {
			return overlay{}, fmt.Errorf("the size is not a number of bytes, with k, m or g behind it: %w", unix.EINVAL)
		}
		return overlay{kind: kind, size: rest}, nil
	case overlayDir:
		return overlay{kind: kind, dir: rest}, checkPath(rest)
	}
	return overlay{}, fmt.Errorf("not one of none, tmpfs:SIZE, dir:PATH: %w", unix.EINVAL)
}

// isSize reports whether a text is a size for tmpfs that bounds it: 0 does not.
func isSize(text string) bool {
	digits := strings.TrimRight(text, "kKmMgG")
	return len(text)-len(digits) <= 1 && digits != "" && len(digits) <= 12 &&
		strings.Trim(digits, "0123456789") == "" && strings.Trim(digits, "0") != ""
}
