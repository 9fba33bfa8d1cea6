package oci

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
)

// parseTmpfsSize returns the bytes of a size of tmpfs(5): a number, and at most one
// of k, m and g. The kernel takes 0 for no limit, and what is left of a number that
// overflows.
func parseTmpfsSize(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kKmMgG")
	if len(text)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("the size is not a number of bytes, with k, m or g behind it: %w", unix.EINVAL)
	}
	bytes, err := bytesize.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("the size is %w: %w", err, unix.EINVAL)
	}
	if bytes == 0 {
		return 0, fmt.Errorf("a size of 0 would be no limit: %w", unix.EINVAL)
	}
	return bytes, nil
}

// Size is a number of bytes in the settings.
type Size uint64

// UnmarshalText reads a size such as "512m". It returns an error for 0, which would
// allow nothing.
func (s *Size) UnmarshalText(text []byte) error {
	bytes, err := parseTmpfsSize(string(text))
	*s = Size(bytes)
	return err
}

// memoryShare is the part of the machine's memory that the tmpfs of a container may
// take by default.
const memoryShare = 8

// tmpfsLimit returns the largest size of a container's tmpfs.
func (s *Settings) tmpfsLimit() (uint64, error) {
	if s.TmpfsLimit != 0 {
		return uint64(s.TmpfsLimit), nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("look at the memory: %w", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit) / memoryShare, nil
}

// checkOverlay refuses a tmpfs that is larger than the settings allow. It returns an
// error that wraps EPERM.
func (s *Settings) checkOverlay(o overlay) error {
	if o.kind != overlayTmpfs {
		return nil
	}
	limit, err := s.tmpfsLimit()
	if err == nil && o.size > limit {
		err = fmt.Errorf("annotation %soverlay: tmpfs of %d bytes: more than tmpfs_limit, %d bytes: %w", prefix, o.size, limit, unix.EPERM)
	}
	return err
}

// A file takes kernel memory besides its pages, which the size does not bound.
// Each page of the size allows one file, and these come on top, for directories
// and links.
const (
	bytesPerInode = 4096
	spareInodes   = 1024
)

// mountTmpfs mounts what takes the writes of one container.
func mountTmpfs(size uint64) (*os.File, error) {
	data := fmt.Sprintf("mode=700,size=%d,nr_inodes=%d", size, size/bytesPerInode+spareInodes)
	if err := mount("ublk-loop", writePlace, "tmpfs", unix.MS_NODEV, data); err != nil {
		return nil, err
	}
	return os.OpenFile(writePlace, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
