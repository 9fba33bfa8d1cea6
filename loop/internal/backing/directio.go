package backing

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
)

// chooseDirect decides between direct and buffered I/O. Auto chooses direct I/O if the
// file system accepts every request that the device can send, which depends on the sector
// size and the offset. On returns an error if it does not. Status shows the choice.
func (b *Backing) chooseDirect(want Switch) error {
	switch want {
	case SwitchOff:
		return nil
	case "", SwitchAuto, SwitchOn:
	default:
		return fmt.Errorf("direct I/O %q: not auto, on or off: %w", want, unix.EINVAL)
	}
	err := b.tryDirect()
	b.Direct = err == nil
	if err != nil && want == SwitchOn {
		return fmt.Errorf("direct I/O: %w", err)
	}
	return nil
}

// tryDirect switches the descriptor to direct I/O, or returns why that is impossible.
func (b *Backing) tryDirect() error {
	align, err := b.directAlignment()
	if err != nil {
		return hint.Add(err, "use {direct_io=auto} or off")
	}
	if b.SectorSize%align != 0 {
		err := fmt.Errorf("sectors of %d bytes: the file needs multiples of %d: %w", b.SectorSize, align, unix.EINVAL)
		return hint.Add(err, "use {sector_size=%d}, or {direct_io=auto}", align)
	}
	if b.Offset%uint64(align) != 0 || b.IsUnaligned() {
		err := fmt.Errorf("offset %d: the file needs multiples of %d: %w", b.Offset, max(align, b.SectorSize), unix.EINVAL)
		return hint.Add(err, "use {direct_io=auto} or off")
	}
	if err := b.setDirect(true); err != nil {
		return hint.Add(fmt.Errorf("switch it on: %w", err), "use {direct_io=auto} or off")
	}
	if err := b.readSectors(); err != nil {
		_ = b.setDirect(false)
		err := fmt.Errorf("sectors of %d bytes: refused: %w", b.SectorSize, err)
		return hint.Add(err, "use {sector_size=%d}, or {direct_io=auto}", maxSectorSize)
	}
	return nil
}

// directAlignment returns the unit of offsets and lengths of direct I/O. It returns 1 if
// the kernel does not report the unit, and an error if there is no direct I/O.
//
// STATX_DIOALIGN (Linux 6.1; ext4, xfs, f2fs, block devices) reports the unit for the
// file itself. Two file systems that do not report it accept O_DIRECT without doing
// direct I/O: tmpfs (Linux 6.6), which has only the page cache, and btrfs, which buffers
// requests that are not a multiple of its blocks (check_direct_IO).
func (b *Backing) directAlignment() (uint32, error) {
	var stx unix.Statx_t
	err := unix.Statx(b.FD, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	if err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 {
		if stx.Dio_offset_align == 0 || stx.Dio_mem_align == 0 {
			return 0, fmt.Errorf("not supported for this file: %w", unix.EINVAL)
		}
		b.memAlign = stx.Dio_mem_align
		return stx.Dio_offset_align, nil
	}
	if b.IsDisk {
		return b.queue.logicalBlockSize, nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.FD, &st); err != nil {
		return 0, fmt.Errorf("get the file system: %w", err)
	}
	switch st.Type {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.HUGETLBFS_MAGIC:
		return 0, fmt.Errorf("the file is in memory: %w", unix.EINVAL)
	case unix.BTRFS_SUPER_MAGIC:
		return b.blockSize, nil
	}
	return 1, nil
}

// setDirect switches O_DIRECT on or off. It does not open the file again, because a
// second open would need a second claim on a disk. The kernel makes the same checks in
// both cases (setfl in fs/fcntl.c, do_dentry_open).
func (b *Backing) setDirect(on bool) error {
	flags, err := unix.FcntlInt(uintptr(b.FD), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(b.FD), unix.F_SETFL, flags)
	return err
}

// readSectors reads the first and the second sector separately. That fails if direct I/O
// needs a larger alignment than a sector. It ignores any other error, for example of a
// bad sector, because the device reports it later.
func (b *Backing) readSectors() error {
	page, err := unix.Mmap(-1, 0, maxSectorSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("map a page: %w", err)
	}
	defer func() { _ = unix.Munmap(page) }()
	sector := uint64(b.SectorSize)
	for at := uint64(0); at < min(b.Size, 2*sector); at += sector {
		_, err := unix.Pread(b.FD, page[:sector], int64(b.Offset+at))
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}
