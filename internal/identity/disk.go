package identity

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk distinguishes a disk or partition from others that have the same number at other
// times. The zero value means that only the number is known.
type Disk struct {
	// Sequence is the disk's sequence number. The kernel gives a new number to each disk,
	// to a loop device that is bound again, and to a drive whose medium changes (Linux
	// 5.15). A partition has its disk's number.
	Sequence uint64
	// Start and Size describe a partition, in sectors of 512 bytes. They are 0 for a
	// whole disk.
	Start, Size uint64
	// Name and UUID describe a device-mapper device. The UUID is empty if its maker gave
	// it none.
	Name, UUID string
}

// is reports whether d is the disk that was once recorded as was. A partition stays the
// same when it grows at its end.
func (d Disk) is(was Disk) bool {
	if d.Sequence == 0 || was.Sequence == 0 {
		return true // only the numbers are known
	}
	return (d.Sequence == was.Sequence || d.isMappedAs(was)) && d.Start == was.Start && d.Size >= was.Size
}

// isMappedAs reports whether two device-mapper devices have the same name and UUID. A
// volume that is deactivated and activated again gets a new sequence number. A name
// without a UUID proves nothing.
func (d Disk) isMappedAs(was Disk) bool {
	return d.UUID != "" && d.UUID == was.UUID && d.Name == was.Name
}

// diskOf returns the Disk of an open disk with the number dev. Sysfs finds disks only by
// their number, so that its data counts only if it describes the open disk. The kernel
// answers no question about a disk that is open with O_PATH. diskOf then describes the
// disk that has the number at the moment.
func diskOf(fd int, dev uint64) (Disk, error) {
	d, err := diskNumbered("/sys", dev)
	if err != nil {
		return d, err
	}
	sequence, err := sequenceOf(fd)
	switch {
	case errors.Is(err, unix.EBADF):
		return d, nil
	case err != nil:
		return d, err
	case sequence != d.Sequence:
		return Disk{Sequence: sequence}, nil
	}
	return d, nil
}

// Sequence returns the sequence number of an open disk, or 0 if the kernel has none.
func Sequence(disk *os.File) (uint64, error) {
	n, err := sequenceOf(int(disk.Fd()))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", disk.Name(), err)
	}
	return n, nil
}

// sequenceOf returns an error that wraps EBADF if the disk is open with O_PATH.
func sequenceOf(fd int) (uint64, error) {
	var n uint64
	// The kernel writes 8 bytes (blkdev_common_ioctl in block/ioctl.c), into n, which does not move
	// during the call (pattern 4 of unsafe.Pointer).
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETDISKSEQ, uintptr(unsafe.Pointer(&n)))
	switch errno {
	case 0:
		return n, nil
	case unix.ENOTTY, unix.EINVAL: // before Linux 5.15
		return 0, nil
	}
	return 0, fmt.Errorf("ask for the disk sequence: %w", errno)
}

// diskNumbered returns the Disk with a number, from sysfs mounted at root. It returns the
// zero value if no disk has the number.
func diskNumbered(root string, dev uint64) (Disk, error) {
	dir := path.Join(root, "dev/block", MajMin(dev))
	disk := dir
	var d Disk
	a := attributes{}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		// Not path.Join: dir is a link, and the parent of its target is the disk.
		disk = dir + "/.."
		d.Start, d.Size = a.number(dir+"/start"), a.number(dir+"/size")
	}
	d.Sequence = a.number(disk + "/diskseq")
	d.Name, d.UUID = a.text(disk+"/dm/name"), a.text(disk+"/dm/uuid")
	return d, a.err
}

// attributes reads attributes of sysfs, and keeps the first error. A missing attribute is
// empty or 0.
type attributes struct{ err error }

func (a *attributes) text(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) && a.err == nil {
			a.err = err
		}
		return ""
	}
	return strings.TrimSuffix(string(data), "\n")
}

func (a *attributes) number(name string) uint64 {
	text := a.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("%s: %w", name, err)
	}
	return n
}
