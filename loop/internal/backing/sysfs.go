package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// sysfsDisk reads the attributes of a disk or partition in /sys/dev/block. It records the
// first attribute that it cannot parse as its error. A missing attribute, for example in
// an older kernel, has a default.
type sysfsDisk struct {
	root  *os.Root // the root of sysfs
	dir   string   // dev/block/MAJ:MIN
	queue string   // the directory queue/: in dir, or for a partition in its disk
	err   error
}

// findDisk returns the disk with a device number. It returns an error that wraps
// fs.ErrNotExist if sysfs does not have it. A partition has the queue of its disk, which
// is the directory above (block/partitions/core.c, add_partition).
func findDisk(root *os.Root, dev uint64) (*sysfsDisk, error) {
	d := &sysfsDisk{root: root, dir: "dev/block/" + identity.MajMin(dev)}
	if _, err := root.Stat(d.dir); err != nil {
		return nil, err
	}
	d.queue = d.dir + "/queue"
	if d.isPartition() {
		d.queue = d.dir + "/../queue"
	}
	if _, err := root.Stat(d.queue); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *sysfsDisk) isPartition() bool {
	_, err := d.root.Stat(d.dir + "/partition")
	return err == nil
}

// text returns an attribute without its newline, or def if the attribute is missing.
func (d *sysfsDisk) text(name, def string) string {
	raw, err := d.root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return def
	case err != nil:
		d.fail(err)
		return def
	}
	return strings.TrimSpace(string(raw))
}

// number returns an attribute of the queue, limited to 32 bits.
func (d *sysfsDisk) number(name string, def uint32) uint32 {
	return uint32(min(d.number64(name, uint64(def)), 1<<32-1))
}

func (d *sysfsDisk) number64(name string, def uint64) uint64 {
	return d.parse(path.Join(d.queue, name), d.text(d.queue+"/"+name, ""), def)
}

// ownNumber returns an attribute of the disk or partition itself.
func (d *sysfsDisk) ownNumber(name string) uint64 {
	return d.parse(path.Join(d.dir, name), d.text(d.dir+"/"+name, ""), 0)
}

func (d *sysfsDisk) parse(name, text string, def uint64) uint64 {
	if text == "" {
		return def
	}
	n, err := parseNumber(text)
	if err != nil {
		d.fail(fmt.Errorf("%s: %w", name, err))
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
