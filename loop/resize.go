package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// ResizeOptions are the options of Resize.
type ResizeOptions struct {
	// Size is the new size in bytes; it may exceed the SizeLimit of the device. 0 means
	// the rest of the file from the device's offset on, up to that limit. For a device of
	// tables it means the rest of the file of the last line.
	Size uint64
	// DiskSequence and Tag are as in DetachOptions.
	DiskSequence *uint64
	Tag          uint64
}

// Resize gives a device of ublk-loop a new size while it is in use, whichever process
// serves it. Users see the new size at once. Data behind the new end of a smaller device
// reappears when the device grows again, unless the file was truncated.
//
// A device of tables can be resized if the last line of the served table is linear or crypt, over a
// file or disk. The line gets another length.
//
// Resize returns an error that wraps EINVAL if the size is not a number of whole sectors,
// exceeds the file, or leaves nothing of the last line of a table, errors.ErrUnsupported for
// other tables, ublk.ErrNotSupported before Linux 6.16, ENODEV if the device or its server is
// gone, and ErrForeign for another program's device.
func Resize(ctl *ublk.Control, id uint32, opts ResizeOptions) error {
	if err := resize(ctl, id, opts); err != nil {
		return fmt.Errorf("resize %s: %w", ublk.BlockPath(id), err)
	}
	return nil
}

// Resize gives one of the server's devices a new size, as the function Resize does. It
// returns an error that wraps ENODEV if the server does not have the device.
func (s *Server) Resize(id uint32, opts ResizeOptions) error {
	d, err := s.find(id, opts.DiskSequence)
	if err != nil {
		return fmt.Errorf("resize %s: %w", ublk.BlockPath(id), err)
	}
	opts.DiskSequence, opts.Tag = &d.sequence, d.dev.taggedID().Tag
	return Resize(s.ctl, id, opts)
}

func resize(ctl *ublk.Control, id uint32, opts ResizeOptions) error {
	lock, err := statefile.Acquire(id)
	if err != nil {
		return err
	}
	defer statefile.Sweep()
	defer lock.Release()
	saved, err := servedState(ctl, id, &opts)
	if err != nil {
		return err
	}
	params, err := ctl.Params(id)
	if err != nil {
		return err
	}
	size, err := saved.newSize(opts.Size, params.LogicalBlockSize)
	if err != nil {
		return err
	}
	grown, err := saved.lockGrowth(ctl, params.Size, size)
	if err != nil {
		return err
	}
	defer grown()
	if err := updateSize(ctl, id, size); err != nil {
		return err
	}
	// The device has its size, whatever becomes of this: the size in the state is for
	// people, and everything else asks the driver.
	saved.Status.Size = size
	_ = saved.write()
	return nil
}

// lockGrowth locks the part of the file that a device gets beyond its limit, until release
// is called. While it is locked, no other device can have it, and a later one sees the new
// size (checkGrown). It returns an error that wraps EBUSY if another device has the part.
func (s *state) lockGrowth(ctl *ublk.Control, was, size uint64) (release func(), err error) {
	c := &s.Config
	locked := max(was, c.SizeLimit)
	if c.Table != "" || c.Shared || c.SizeLimit == 0 || size <= locked || s.Status.FileIsDisk && c.ReadOnly {
		return func() {}, nil
	}
	mode := filelock.Exclusive
	if c.ReadOnly {
		mode = filelock.Shared
	}
	part := filelock.Range{Offset: c.Offset + locked, Length: size - locked}
	l, err := filelock.Acquire(statefile.LockDir, s.file(), part, mode)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("another device has the part of the file behind it: %w", unix.EBUSY)
	}
	if err != nil {
		return nil, err
	}
	if err := checkWaiting(ctl, servesNone, []place{{s.Status.File, s.file(), part, !c.ReadOnly}}); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return func() { _ = l.Release() }, nil
}

// servedState returns the state of the device of opts, which has a server.
func servedState(ctl *ublk.Control, id uint32, opts *ResizeOptions) (*state, error) {
	info, saved, err := readOurs(ctl, id, opts.Tag, opts.DiskSequence)
	if err != nil {
		return nil, err
	}
	if err := process.CheckProc(); err != nil { // without /proc the server would look dead
		return nil, err
	}
	if saved == nil || !saved.isServed() || info.State != ublk.StateLive {
		return nil, fmt.Errorf("it has no server: %w", unix.ENODEV)
	}
	return saved, nil
}

func updateSize(ctl *ublk.Control, id uint32, size uint64) error {
	err := ctl.UpdateSize(id, size)
	if errors.Is(err, ublk.ErrNotSupported) {
		return hint.Add(ublk.ErrNotSupported, "resize needs Linux 6.16 (UPDATE_SIZE); remove the device with del and add it again")
	}
	return err
}

// newSize returns the new size of the device: the size asked for, or for 0 the size that add
// would give.
func (s *state) newSize(asked uint64, sectorSize uint32) (uint64, error) {
	if s.Config.Table != "" {
		return s.newTableSize(asked, sectorSize)
	}
	total, err := s.backingSize(s.file(), s.Status.File)
	if err != nil {
		return 0, err
	}
	if s.Config.WholeSectors && asked == 0 {
		total -= (total - min(total, s.Status.Offset)) % uint64(sectorSize)
	}
	return resizedTo(asked, total, s.Status, sectorSize)
}

// newTableSize is newSize for a device of tables, where the last line can be longer or shorter.
func (s *state) newTableSize(asked uint64, sectorSize uint32) (uint64, error) {
	tables, err := stack.Parse([]byte(s.Config.Table), false)
	if err != nil {
		return 0, err
	}
	last := tables.Resizable()
	if last == nil {
		return 0, fmt.Errorf("the last line of its table is not linear or crypt over a file or disk: %w", errors.ErrUnsupported)
	}
	area := last.Target.Areas(last.Length)[0]
	number := slices.Index(tables.Devices(), area.Device)
	if number < 0 || number >= len(s.Files) {
		return 0, fmt.Errorf("%s is not in the state: %w", area.Device, unix.ENOENT)
	}
	total, err := s.backingSize(s.Files[number].Object, s.Files[number].Path)
	if err != nil {
		return 0, err
	}
	// The device as it would be if the file began where the table does.
	start, from := last.Start<<transfer.SectorShift, area.Start<<transfer.SectorShift
	size, err := resizedTo(asked, start+max(total, from)-from, &Status{}, sectorSize)
	if err == nil && size <= start {
		err = fmt.Errorf("%d bytes: the last line of the table starts at %d: %w", size, start, unix.EINVAL)
	}
	return size, err
}

// resizedTo returns the new size of a device in a backing of total bytes: the size asked
// for, or for 0 the size that add would give.
func resizedTo(asked, total uint64, s *Status, sectorSize uint32) (uint64, error) {
	sector := uint64(sectorSize)
	if total <= s.Offset {
		return 0, hint.Add(fmt.Errorf("the file ends at %d, before the device starts: %w", total, unix.EINVAL), hintGrow)
	}
	room := total - s.Offset
	size := asked
	if asked == 0 {
		size = room
		if s.SizeLimit != 0 {
			size = min(room, s.SizeLimit)
		}
	}
	whole := min(size, room) / sector * sector
	switch {
	case whole == 0:
		err := fmt.Errorf("%d bytes: less than a sector of %d: %w", size, sector, unix.EINVAL)
		if asked == 0 {
			return 0, hint.Add(err, hintGrow)
		}
		return 0, hint.Add(err, "the smallest size is %d", sector)
	case size > room:
		return 0, hint.Add(fmt.Errorf("%d bytes: the file has %d: %w", size, room, unix.EINVAL), hintGrow)
	case size%sector != 0:
		err := fmt.Errorf("%d bytes: not a multiple of the sector size %d: %w", size, sector, unix.EINVAL)
		return 0, hint.Add(err, "the next smaller multiple is %d", whole)
	}
	return size, nil
}

// hintGrow is the hint for a file that is too small.
const hintGrow = "truncate --size makes a file larger"

// isServed reports whether the server in the state exists.
func (s *state) isServed() bool {
	now, err := process.StartTime(s.Status.PID)
	return err == nil && now == s.StartTime
}

// backingSize returns the current size of a file or disk of the device, which had a path. It
// finds the file among the server's open files, so that the file's name does not matter.
func (s *state) backingSize(object identity.File, path string) (uint64, error) {
	fds, err := filepath.Glob("/proc/" + strconv.Itoa(s.Status.PID) + "/fd/*")
	if err != nil {
		return 0, err
	}
	for _, fd := range fds {
		st, err := statOpen(fd)
		if err != nil || !object.HasNumbersOf(identity.FromStat(&st)) {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return diskSize(fd, object, path)
		}
		err = unix.Stat(fd, &st) // what it has grown to elsewhere too
		return uint64(st.Size), err
	}
	return 0, fmt.Errorf("find %s with the server, process %d: %w", path, s.Status.PID, unix.ENOENT)
}

// diskSize returns the size of a disk of the device, whose node is at path. It returns an error
// that wraps ESTALE if the number of the node belongs to another disk than name now.
func diskSize(path string, object identity.File, name string) (uint64, error) {
	disk, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = disk.Close() }()
	found, err := identity.Of(disk)
	if err != nil {
		return 0, err
	}
	if err := checkIdentity(found, object, name); err != nil {
		return 0, err
	}
	size, err := disk.Seek(0, unix.SEEK_END)
	return uint64(size), err
}
