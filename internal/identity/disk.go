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

// Disk is what tells a disk or partition from others that have its number at other
// times. The zero value says that nothing is known but the number.
type Disk struct {
	// Sequence is the disk's sequence number. The kernel gives each disk another, and
	// another to a loop device that is bound anew, or to a drive with another medium
	// (Linux 5.15). A partition has its disk's.
	Sequence uint64
	// Start and Size are those of a partition, in sectors of 512 bytes. They are 0 for
	// a whole disk.
	Start, Size uint64
	// Name and UUID are those of a device-mapper device. The UUID is empty if its maker
	// gave it none.
	Name, UUID string
}

// is reports whether d is the disk that was once known as was. A partition that has
// grown at its end is the same one.
func (d Disk) is(was Disk) bool {
	if d.Sequence == 0 || was.Sequence == 0 {
		return true // the numbers are all there is
	}
	return (d.Sequence == was.Sequence || d.isMappedAs(was)) && d.Start == was.Start && d.Size >= was.Size
}

// isMappedAs reports whether two device-mapper devices have the same name and UUID. A
// volume that is deactivated and activated again has a new sequence number. A name
// without a UUID says nothing.
func (d Disk) isMappedAs(was Disk) bool {
	return d.UUID != "" && d.UUID == was.UUID && d.Name == was.Name
}

// diskOf returns what tells an open disk, whose number is dev, from others. Sysfs knows
// disks by their number only, so what it says counts if it is about the disk that is
// open. Nothing can be asked of a disk that is open for its path only: then it is the
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

// Sequence returns the sequence number of an open disk, 0 if the kernel has none.
func Sequence(disk *os.File) (uint64, error) {
	n, err := sequenceOf(int(disk.Fd()))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", disk.Name(), err)
	}
	return n, nil
}

// sequenceOf returns an error that wraps EBADF for a disk that is open for its path
// only.
func sequenceOf(fd int) (uint64, error) {
	var n uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETDISKSEQ, uintptr(unsafe.Pointer(&n)))
	switch errno {
	case 0:
		return n, nil
	case unix.ENOTTY, unix.EINVAL: // before Linux 5.15
		return 0, nil
	}
	return 0, fmt.Errorf("ask for the disk sequence: %w", errno)
}

// diskNumbered returns what sysfs, mounted at root, says of the disk that has a number.
// It returns the zero value for what is no disk.
func diskNumbered(root string, dev uint64) (Disk, error) {
	dir := path.Join(root, "dev/block", MajMin(dev))
	disk := dir
	var d Disk
	a := attributes{}
	if _, err := os.Stat(dir + "/partition"); err == nil {
		// Not path.Join: dir is a link, whose target has the disk above it.
		disk = dir + "/.."
		d.Start, d.Size = a.number(dir+"/start"), a.number(dir+"/size")
	}
	d.Sequence = a.number(disk + "/diskseq")
	d.Name, d.UUID = a.text(disk+"/dm/name"), a.text(disk+"/dm/uuid")
	return d, a.err
}

// attributes reads attributes of sysfs. The first error counts; one that is not there is
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
