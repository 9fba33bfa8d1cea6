package stack

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// OpenDevice opens a device of a table, which is a path or MAJOR:MINOR. open opens a path.
func OpenDevice(open func(path string) (*os.File, error), device string) (*os.File, error) {
	major, minor, ok := table.DeviceNumber(device)
	if !ok {
		return open(device)
	}
	return openNumber(open, unix.Mkdev(major, minor))
}

// openNumber opens the node that the kernel has made for a block device.
func openNumber(open func(path string) (*os.File, error), number uint64) (*os.File, error) {
	name := ""
	uevent, err := os.ReadFile("/sys/dev/block/" + identity.MajMin(number) + "/uevent")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no such block device: %w", unix.ENXIO)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(uevent)) {
		if value, found := strings.CutPrefix(line, "DEVNAME="); found {
			name = strings.TrimSpace(value)
		}
	}
	file, err := open("/dev/" + name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(file.Fd()), &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != number) {
		err = fmt.Errorf("/dev/%s is another device: %w", name, unix.ESTALE)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
