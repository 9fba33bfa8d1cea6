package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
)

// A disk or file system that verifies checksums computes the checksum of a page before it
// writes the page. If the page changes in between, the checksum is wrong, and every later
// read fails. It is normal that pages change while they are written: a process writes to
// a mapped file, or a file system to a buffer. The kernel makes writers wait if the disk
// requires it (BLK_FEAT_STABLE_WRITES), but a ublk device cannot require it before its
// disk is added, which is when the page cache of the disk is set up. Therefore the driver
// must copy the pages.

// Checksummer returns the name of the disk, or the type of the file system, that verifies
// checksums of the data of an OpenPath object. It returns "" if there is none. Buffered
// I/O is not affected, because the page cache copies the data.
func Checksummer(file *os.File) (string, error) {
	defer runtime.KeepAlive(file)
	b := &Backing{FD: int(file.Fd()), Path: file.Name()}
	if err := b.identify(file); err != nil {
		return "", err
	}
	return b.checksummer("/sys")
}

// Checksummer is the function Checksummer for an open backing. Without direct I/O or
// writes it returns "".
func (b *Backing) Checksummer() (string, error) {
	if !b.Direct || b.ReadOnly {
		return "", nil
	}
	name, err := b.checksummer("/sys")
	if err != nil {
		return "", fmt.Errorf("open %s: %w", b.Path, err)
	}
	return name, nil
}

// checksummer is Checksummer with sysfs mounted at dir.
func (b *Backing) checksummer(dir string) (string, error) {
	if name, err := b.checksummingFileSystem(); name != "" || err != nil {
		return name, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	var name string
	disks, err := b.disks(root)
	for i := 0; err == nil && name == "" && i < len(disks); i++ {
		name, err = checksumDisk(root, disks[i])
		if !b.IsDisk && errors.Is(err, fs.ErrNotExist) {
			err = nil // the file system has no disk
		}
	}
	if err != nil {
		return "", fmt.Errorf("look for checksums: %w", err)
	}
	return name, nil
}

// disks returns the directories in sysfs of the disks that may hold the data. A btrfs may
// have several disks, and a server, which does not see the mounts of its starter, cannot
// find out which. Then the disks of all btrfs count.
func (b *Backing) disks(root *os.Root) ([]string, error) {
	if b.IsDisk {
		return []string{"dev/block/" + identity.MajMin(b.Rdev)}, nil
	}
	dev, err := b.fileDisk(root)
	if err == nil {
		return []string{"dev/block/" + identity.MajMin(dev)}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kind, err := b.fileSystem()
	if err != nil || kind != unix.BTRFS_SUPER_MAGIC {
		return nil, err
	}
	return fs.Glob(root.FS(), "fs/btrfs/*/devices/*")
}

// fileSystem returns the magic number of the file system of a file.
func (b *Backing) fileSystem() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.FD, &st); err != nil {
		return 0, fmt.Errorf("get the file system: %w", err)
	}
	return st.Type, nil
}

// checksumFileSystems lists file systems that verify checksums of file data but do not
// copy direct writes. Btrfs is not among them, because it copies the data before it
// computes the checksum (Linux 6.15, the first version with zero copy). An overlay passes
// direct writes on to another file system and does not say to which, so that it counts
// too. The magic numbers come from the sources of the file systems.
var checksumFileSystems = map[int64]string{
	0xca451a4e:                 "bcachefs",
	0x2fc12fc1:                 "zfs",
	0x00c36400:                 "ceph",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
}

func (b *Backing) checksummingFileSystem() (string, error) {
	if b.IsDisk {
		return "", nil
	}
	kind, err := b.fileSystem()
	return checksumFileSystems[kind], err
}

// checksumDisk returns the name of the disk in a directory of sysfs, or of the first disk
// below it, that verifies checksums. It returns "" if there is none.
func checksumDisk(root *os.Root, dir string) (string, error) {
	disk := dir
	if _, err := root.Stat(dir + "/partition"); err == nil {
		disk = dir + "/.."
	}
	own, err := root.Open(disk)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	d := &sysfsDisk{own: own}
	defer d.close()
	if verifies(d) {
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

// integrityUUID is how the UUIDs of the disks of integritysetup begin (cryptsetup,
// lib/libdevmapper.c).
const integrityUUID = "CRYPT-INTEGRITY-"

// verifies reports whether a disk itself verifies checksums. Before Linux 7.0, dm-integrity
// does not ask for pages that stay the same (target version 1.14 has stable_writes 0, 1.15
// has 1), so that only the UUID tells.
func verifies(d *sysfsDisk) bool {
	format := d.text(d.own, "integrity/format", "none")
	return d.parse(d.own, "queue/stable_writes", 0) != 0 ||
		!slices.Contains([]string{"none", "nop", ""}, format) ||
		strings.HasPrefix(d.text(d.own, "dm/uuid", ""), integrityUUID)
}

// names returns the names in a directory. It returns none if the directory does not
// exist. Root.FS cannot be used, because it refuses "..", which leads from a partition to
// its disk.
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
