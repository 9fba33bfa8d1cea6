package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// sysfsDisk reads the attributes of a disk or partition in /sys/dev/block. It records the
// first attribute that it cannot parse as its error. A missing attribute, for example in
// an older kernel, has a default.
//
// Its directories are opened once. A path from the root of sysfs would be followed for each
// attribute, link by link, with a system call for each of a dozen directories.
type sysfsDisk struct {
	own   *os.File // dev/block/MAJ:MIN
	queue *os.File // the directory queue/: in own, or for a partition in its disk
	err   error
}

func (b *Backing) readSysfs(dir string) (queueLimits, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return queueLimits{}, err
	}
	defer func() { _ = root.Close() }()
	dev := b.Rdev
	if !b.IsDisk {
		if dev, err = b.fileDisk(root); err != nil {
			return queueLimits{}, err
		}
	}
	disk, err := findDisk(root, dev)
	if err != nil {
		return queueLimits{}, err
	}
	defer disk.close()
	return disk.limits()
}

// findDisk returns the disk with a device number, which the caller closes. It returns an
// error that wraps fs.ErrNotExist if sysfs does not have it. A partition has the queue of
// its disk, which is the directory above (block/partitions/core.c, add_partition).
func findDisk(root *os.Root, dev uint64) (*sysfsDisk, error) {
	dir := "dev/block/" + identity.MajMin(dev)
	own, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	d := &sysfsDisk{own: own}
	queue := dir + "/queue"
	if d.isPartition() {
		queue = dir + "/../queue"
	}
	if d.queue, err = root.Open(queue); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *sysfsDisk) close() {
	_ = d.own.Close()
	if d.queue != nil {
		_ = d.queue.Close()
	}
}

func (d *sysfsDisk) isPartition() bool {
	var st unix.Stat_t
	return unix.Fstatat(int(d.own.Fd()), "partition", &st, 0) == nil
}

// text returns an attribute without its newline, or def if the attribute is missing.
func (d *sysfsDisk) text(dir *os.File, name, def string) string {
	raw, err := readAttribute(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return def
	case err != nil:
		d.fail(err)
		return def
	}
	return strings.TrimSpace(raw)
}

// readAttribute reads an attribute, which sysfs gives to the first read. It uses no os.File,
// which would make the runtime poll for changes of the attribute.
func readAttribute(dir *os.File, name string) (text string, err error) {
	defer runtime.KeepAlive(dir)
	err = eintr.Repeat(func() error {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		var b [4096]byte // the longest attribute
		n, err := unix.Read(fd, b[:])
		text = string(b[:max(n, 0)])
		return err
	})
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path.Join(dir.Name(), name), Err: err}
	}
	return text, nil
}

// number returns an attribute of the queue, limited to 32 bits.
func (d *sysfsDisk) number(name string, def uint32) uint32 {
	return uint32(min(d.number64(name, uint64(def)), 1<<32-1))
}

func (d *sysfsDisk) number64(name string, def uint64) uint64 {
	return d.parse(d.queue, name, def)
}

// ownNumber returns an attribute of the disk or partition itself.
func (d *sysfsDisk) ownNumber(name string) uint64 {
	return d.parse(d.own, name, 0)
}

func (d *sysfsDisk) parse(dir *os.File, name string, def uint64) uint64 {
	text := d.text(dir, name, "")
	if text == "" {
		return def
	}
	n, err := parseNumber(text)
	if err != nil {
		d.fail(fmt.Errorf("%s: %w", path.Join(dir.Name(), name), err))
		return def
	}
	return n
}

func (d *sysfsDisk) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// parseNumber parses an attribute's number. block/blk-sysfs.c prints all numbers as
// decimal.
func parseNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: not a number: %w", text, unix.EINVAL)
	}
	return n, nil
}
