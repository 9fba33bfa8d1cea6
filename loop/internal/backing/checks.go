package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// A disk or file system that checks what it stores computes a checksum of a page before
// the page is written. If the page changes in between, the checksum is wrong, and so is
// every later read. Pages under way change as a rule: a file is mapped and written to, a
// file system writes to a buffer again. The kernel lets writers wait for such a disk
// (BLK_FEAT_STABLE_WRITES), but a ublk device cannot ask for that before its disk is
// added, when the disk's own page cache is told. So the driver's copy has to do.

// Checksummer returns the name of the disk, or the type of the file system, that checks
// what is stored in the object of OpenPath, empty if there is none. The page cache
// copies: with buffered I/O this is of no concern.
func Checksummer(file *os.File) (string, error) {
	defer runtime.KeepAlive(file)
	b := &Backing{FD: int(file.Fd()), Path: file.Name()}
	if err := b.identify(file); err != nil {
		return "", err
	}
	return b.checksummer("/sys")
}

// Checksummer is the function of that name for what is open, with direct I/O.
func (b *Backing) Checksummer() (string, error) {
	if !b.Direct || b.ReadOnly {
		return "", nil
	}
	return b.checksummer("/sys")
}

// checksummer has sysfs mounted at dir.
func (b *Backing) checksummer(dir string) (string, error) {
	if name, err := b.checksummingFileSystem(); name != "" || err != nil {
		return name, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	dev := b.Rdev
	if !b.IsDisk {
		dev, err = b.fileDisk(root)
	}
	var name string
	if err == nil {
		name, err = checksumDisk(root, "dev/block/"+identity.MajMin(dev))
	}
	if !b.IsDisk && errors.Is(err, fs.ErrNotExist) {
		return "", nil // no disk below the file system
	}
	if err != nil {
		return "", fmt.Errorf("look for checksums: %w", err)
	}
	return name, nil
}

// checksumFileSystems check the data of files, and take direct writes as they are. Btrfs
// is not among them: it copies what it computes a checksum of (Linux 6.15, which is the
// first with zero copy). Magic numbers are those of the file systems' own sources.
var checksumFileSystems = map[int64]string{
	0xca451a4e: "bcachefs",
	0x2fc12fc1: "zfs",
	0x00c36400: "ceph",
}

func (b *Backing) checksummingFileSystem() (string, error) {
	if b.IsDisk {
		return "", nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.FD, &st); err != nil {
		return "", fmt.Errorf("ask for the file system: %w", err)
	}
	return checksumFileSystems[st.Type], nil
}

// checksumDisk returns the name of the disk in a directory of sysfs, or of the first
// below it, that checks what it stores, empty if none does.
func checksumDisk(root *os.Root, dir string) (string, error) {
	d := &sysfsDisk{root: root, dir: dir}
	disk := dir
	if d.isPartition() {
		disk = dir + "/.."
	}
	d.queue = disk + "/queue"
	format := d.text(disk+"/integrity/format", "none")
	if d.number("stable_writes", 0) != 0 || !slices.Contains([]string{"none", "nop", ""}, format) {
		return diskName(root, disk, d.err)
	}
	if d.err != nil {
		return "", d.err
	}
	slaves, err := names(root, disk+"/slaves")
	if err != nil {
		return "", err
	}
	for _, slave := range slaves {
		if name, err := checksumDisk(root, disk+"/slaves/"+slave); name != "" || err != nil {
			return name, err
		}
	}
	return "", nil
}

// names returns the names in a directory, none for one that is not there. Root.FS does not
// take "..", by which a partition's disk is found.
func names(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.Readdirnames(-1)
}

// diskName returns the name of the disk in a directory of sysfs.
func diskName(root *os.Root, dir string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	f, err := root.Open(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	target, err := os.Readlink(ProcPath(int(f.Fd())))
	return path.Base(target), err
}
