package loop

import (
	"os"
	"sync/atomic"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// state is the data of a device that the driver does not keep.
type state struct {
	StartTime   uint64 // of Status.PID, in clock ticks since boot
	FileBirth   int64  // time when the file was made, see identity.File
	FileDisk    identity.Disk
	Files       []stateFile // of a device of tables, in the order of the text
	KeyCheck    string      // check of the transfer's key, see keyCheck
	Recovering  bool        // Status.PID has begun to take over the device, and has not finished
	ManyDevices bool        // Status.PID also has other devices
	Config      Config
	Status      *Status
}

// stateFile is a file or disk below the tables of a device.
type stateFile struct {
	Path   string
	Object identity.File
}

// write writes the state. The caller holds the lock of the device.
func (s *state) write() error {
	r := s.record()
	return r.Write()
}

// CrashPath returns the path of the file in which the server of a device says why its program has
// crashed, if it has no log. The file goes with the device.
func CrashPath(id uint32) string { return statefile.CrashPath(id) }

// readState returns the state of a device, or nil if there is none.
func readState(id uint32) (*state, error) {
	r, err := statefile.Read(id)
	if err != nil || r == nil {
		return nil, err
	}
	return stateFrom(r), nil
}

// readOurs returns the driver's description of a device and its state, or nil for the latter if there is none. tag and
// sequence are those of DetachOptions. It returns an error that wraps ErrForeign for another program's device, and ENODEV
// if there is no such device, or another one with its id.
func readOurs(ctl *ublk.Control, id uint32, tag uint64, sequence *uint64) (ublk.Info, *state, error) {
	info, err := ctl.Info(id)
	switch {
	case err != nil:
		return ublk.Info{}, nil, err
	case !isOurs(&info):
		return ublk.Info{}, nil, ErrForeign
	case isAnother(&info, tag, sequence):
		return ublk.Info{}, nil, errReplaced
	}
	saved, err := readState(id)
	return info, saved, err
}

// record returns the state in its form on disk. It does not contain the key.
func (s *state) record() statefile.Record {
	return statefile.Record{
		StartTime: s.StartTime, FileBirth: s.FileBirth, FileDisk: statefile.Disk(s.FileDisk), KeyCheck: s.KeyCheck, Recovering: s.Recovering,
		Config: recordConfig(&s.Config, s.ManyDevices), Status: recordStatus(s.Status), Files: recordFiles(s.Files),
	}
}

// stateFrom is the inverse of record.
func stateFrom(r *statefile.Record) *state {
	s := &state{
		StartTime: r.StartTime, FileBirth: r.FileBirth, FileDisk: identity.Disk(r.FileDisk), KeyCheck: r.KeyCheck, Recovering: r.Recovering,
		ManyDevices: r.Config.ManyDevices, Config: configFrom(&r.Config), Status: statusFrom(r.Status), Files: filesFrom(r.Files),
	}
	s.Status.Table, s.Status.Files, s.Status.Ref = s.Config.Table, statusFiles(s.Files), s.Config.Ref
	return s
}

func recordFiles(files []stateFile) (list []statefile.File) {
	for i := range files {
		o := &files[i].Object
		list = append(list, statefile.File{
			Path: files[i].Path, Device: o.Device, Inode: o.Inode, IsDisk: o.IsDisk, Birth: o.Birth, Disk: statefile.Disk(o.Disk),
		})
	}
	return list
}

func filesFrom(list []statefile.File) (files []stateFile) {
	for _, f := range list {
		object := identity.File{IsDisk: f.IsDisk, Device: f.Device, Inode: f.Inode, Birth: f.Birth, Disk: identity.Disk(f.Disk)}
		files = append(files, stateFile{f.Path, object})
	}
	return files
}

// statusFiles returns the files as a status has them.
func statusFiles(files []stateFile) (list []StatusFile) {
	for i := range files {
		o := &files[i].Object
		list = append(list, StatusFile{File: files[i].Path, Device: o.Device, Inode: o.Inode, IsDisk: o.IsDisk})
	}
	return list
}

func recordConfig(c *Config, many bool) statefile.Config {
	return statefile.Config{
		ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: string(c.DirectIO), ZeroCopy: string(c.ZeroCopy), PartScan: c.PartScan,
		Queues: c.Queues, Depth: c.Depth, MaxIOBytes: c.MaxIOBytes, Transfer: statefile.Transfer(c.Transfer),
		OnCrash: string(c.OnCrash), Shared: c.Shared, KeepSpace: c.KeepSpace, Autoclear: c.Autoclear, ManyDevices: many, Table: c.Table, Ref: c.Ref,
	}
}

func configFrom(c *statefile.Config) Config {
	return Config{
		ID: c.ID, ReadOnly: c.ReadOnly, Offset: c.Offset, SizeLimit: c.SizeLimit, WholeSectors: c.WholeSectors, SectorSize: c.SectorSize,
		DirectIO: Switch(c.DirectIO), ZeroCopy: Switch(c.ZeroCopy), PartScan: c.PartScan,
		Queues: c.Queues, Depth: c.Depth, MaxIOBytes: c.MaxIOBytes, Transfer: TransferConfig(c.Transfer),
		OnCrash: OnCrash(c.OnCrash), Shared: c.Shared, KeepSpace: c.KeepSpace, Autoclear: c.Autoclear, Table: c.Table, Ref: c.Ref,
	}
}

func recordStatus(s *Status) *statefile.Status {
	return &statefile.Status{
		ID: s.ID, Device: s.Device, MajMin: s.MajMin, DiskSequence: s.DiskSequence, State: s.State, PID: s.PID,
		File: s.File, FileDevice: s.FileDevice, FileInode: s.FileInode, FileIsDisk: s.FileIsDisk,
		Size: s.Size, Offset: s.Offset, SizeLimit: s.SizeLimit,
		ReadOnly: s.ReadOnly, DirectIO: s.DirectIO, BufferMode: s.BufferMode, CopyReason: s.CopyReason,
		PartScan: s.PartScan, Autoclear: s.Autoclear, OnCrash: s.OnCrash, Queues: s.Queues, Depth: s.Depth,
		Transfer: statefile.Transfer(s.Transfer), Verity: s.Verity, Limits: statefile.Limits(s.Limits),
	}
}

func statusFrom(s *statefile.Status) *Status {
	return &Status{
		ID: s.ID, Device: s.Device, MajMin: s.MajMin, DiskSequence: s.DiskSequence, State: s.State, PID: s.PID,
		File: s.File, FileDevice: s.FileDevice, FileInode: s.FileInode, FileIsDisk: s.FileIsDisk,
		Size: s.Size, Offset: s.Offset, SizeLimit: s.SizeLimit,
		ReadOnly: s.ReadOnly, DirectIO: s.DirectIO, BufferMode: s.BufferMode, CopyReason: s.CopyReason,
		PartScan: s.PartScan, Autoclear: s.Autoclear, OnCrash: s.OnCrash, Queues: s.Queues, Depth: s.Depth,
		Transfer: TransferConfig(s.Transfer), Verity: s.Verity, Limits: Limits(s.Limits),
	}
}

// configFor returns the configuration with which this server gets the same device from
// the file as the last server.
func (s *state) configFor(p *ublk.Params) Config {
	cfg := s.Config
	cfg.SectorSize = p.LogicalBlockSize
	if own := cfg.Transfer.SectorSize; own != 0 && own < cfg.SectorSize {
		cfg.SectorSize = 0 // the disk's own size, which the configuration did not request
	}
	cfg.SizeLimit = p.Size
	cfg.DirectIO = SwitchOff
	if s.Status.DirectIO {
		cfg.DirectIO = SwitchOn
	}
	return cfg
}

// The driver keeps 64 bits with each device. The upper half marks devices of ublk-loop
// with "ubl" and a version. The lower half names the server's process, which identifies
// the server before there is a state file. Above the 22 bits of a pid (PID_MAX_LIMIT in
// linux/threads.h) it has a counter, which distinguishes a device from the next device of
// the process with the same id.
const (
	tagMark    = 0x75626c01 << 32
	tagMask    = 0xffffffff << 32
	tagPIDBits = 22
)

// tagCount counts the devices of this process. The tag has its low bits.
var tagCount atomic.Uint32

// newTag returns a tag for another device of this process.
func newTag() uint64 {
	return tagMark | uint64(tagCount.Add(1)<<tagPIDBits|uint32(os.Getpid()))
}

// tagPID returns the process that made a device of ublk-loop.
func tagPID(tag uint64) int { return int(tag & (1<<tagPIDBits - 1)) }

// isOurs reports whether a device was made by ublk-loop.
func isOurs(info *ublk.Info) bool { return info.Tag&tagMask == tagMark }

// isOther reports whether info describes another device with the same id.
func (d *Device) isOther(info *ublk.Info) bool { return info.Tag != d.dev.Info().Tag }

// TaggedID distinguishes a device from later devices with the same id.
type TaggedID struct {
	ID  uint32
	Tag uint64 // the tag that the driver keeps with the device
}

// taggedID returns the device's id and tag.
func (d *Device) taggedID() TaggedID {
	info := d.dev.Info()
	return TaggedID{info.ID, info.Tag}
}
