package oci

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
)

// parseBytes parses a number of bytes as in tmpfs(5): a number with at most one of the
// suffixes k, m and g. It refuses numbers that the kernel would misunderstand: 0, which
// means no limit for a tmpfs, and a number that overflows.
func parseBytes(text string) (uint64, error) {
	digits := strings.TrimRight(text, "kKmMgG")
	if len(text)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, fmt.Errorf("not a number of bytes, with an optional suffix k, m or g: %w", unix.EINVAL)
	}
	bytes, err := bytesize.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("the number of bytes is %w: %w", err, unix.EINVAL)
	}
	if bytes == 0 {
		return 0, fmt.Errorf("0 would mean no limit: %w", unix.EINVAL)
	}
	return bytes, nil
}

// Size is a number of bytes in the settings.
type Size uint64

// UnmarshalText parses a size such as "512m". It returns an error for 0, which would
// allow no writes.
func (s *Size) UnmarshalText(text []byte) error {
	bytes, err := parseBytes(string(text))
	*s = Size(bytes)
	return err
}

// memoryShare defines the default limit: a container's tmpfs may take 1/memoryShare of
// the machine's memory.
const memoryShare = 8

// tmpfsLimit returns the maximum size of a container's tmpfs.
func (s *Settings) tmpfsLimit() (uint64, error) {
	if s.TmpfsLimit != 0 {
		return uint64(s.TmpfsLimit), nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("get the size of the memory: %w", err)
	}
	return info.Totalram * uint64(info.Unit) / memoryShare, nil
}

// checkOverlay refuses a tmpfs that exceeds the limit. It returns an error that wraps
// EPERM.
func (s *Settings) checkOverlay(o overlay) error {
	if o.kind != overlayTmpfs {
		return nil
	}
	limit, err := s.tmpfsLimit()
	if err == nil && o.size > limit {
		err = fmt.Errorf("annotation %soverlay: tmpfs of %d bytes: more than the tmpfs_limit of %d bytes: %w", prefix, o.size, limit, unix.EPERM)
	}
	return err
}

// These limit the number of files, because a file takes kernel memory that the size of
// the tmpfs does not include. A tmpfs may have one file for each page of its size, and
// spareInodes more for directories and links.
const (
	bytesPerInode = 4096
	spareInodes   = 1024
)

// mountTmpfs mounts a tmpfs for the writes of one container.
func mountTmpfs(size uint64) (*os.File, error) {
	data := fmt.Sprintf("mode=700,size=%d,nr_inodes=%d", size, size/bytesPerInode+spareInodes)
	if err := mount("ublk-loop", writePlace, "tmpfs", unix.MS_NODEV, data); err != nil {
		return nil, err
	}
	return os.OpenFile(writePlace, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
