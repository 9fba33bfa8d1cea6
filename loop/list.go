package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/internal/process"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// describe returns a new device's status from the driver and the backing.
func (d *Device) describe(cfg *Config) Status {
	info := d.dev.Info()
	s := Status{
		ID: info.ID, Tag: info.Tag, Device: d.dev.BlockPath(), PID: os.Getpid(),
		BufferMode: d.dev.Mode().String(), CopyReason: d.copyReason,
		PartScan: cfg.PartScan, Ref: cfg.Ref, Autoclear: cfg.Autoclear, OnCrash: string(onCrashOf(info.Features)), Queues: int(info.Queues), Depth: int(info.Depth),
	}
	if d.stack != nil {
		d.describeStack(&s, cfg)
		return s
	}
	s.File, s.FileDevice, s.FileInode, s.FileIsDisk = d.b.Path, identity.MajMin(d.b.DeviceNumber()), d.b.Ino, d.b.IsDisk
	s.Size, s.Offset, s.SizeLimit = d.b.Size, d.b.Offset, cfg.SizeLimit
	s.ReadOnly, s.DirectIO, s.Transfer = d.b.ReadOnly, d.b.Direct, describeTransfer(d.b, cfg)
	return s
}

// blockOf returns a block device's major:minor and its sequence number, or "" and 0 if the block
// device is gone. sysfs has both in one file, in lines such as DISKSEQ=5.
func blockOf(id uint32) (number string, sequence uint64) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/ublkb%d/uevent", id))
	if err != nil {
		return "", 0
	}
	return parseBlock(string(text))
}

func parseBlock(text string) (number string, sequence uint64) {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	sequence, _ = strconv.ParseUint(values["DISKSEQ"], 10, 64) // 0 before Linux 5.15
	if values["MAJOR"] == "" {
		return "", 0
	}
	return values["MAJOR"] + ":" + values["MINOR"], sequence
}

// errReplaced is returned for a device that has gone, if another device has its id.
var errReplaced = fmt.Errorf("another device has its number now: %w", unix.ENODEV)

// isAnother reports whether a device has another tag than wanted, unless that is 0, or whether
// its disk has another sequence number than wanted, unless that is nil. A device has a disk, and
// so a sequence number, only between its start and its stop. It always has a tag, but a process
// makes the same tag again after 1024 devices.
func isAnother(info *ublk.Info, tag uint64, sequence *uint64) bool {
	if tag != 0 && info.Tag != tag {
		return true
	}
	if sequence == nil {
		return false
	}
	_, now := blockOf(info.ID)
	started := tag != 0 && *sequence == 0 // since the caller has seen it
	return now != 0 && now != *sequence && !started
}

// List returns the devices of ublk-loop by id, including those whose server has ended.
func List(ctl *ublk.Control) ([]Status, error) {
	infos, err := ctl.List()
	if err != nil {
		return nil, err
	}
	list := []Status{}
	for _, info := range infos {
		if !isOurs(&info) {
			continue
		}
		s, err := statusOf(ctl, info)
		if errors.Is(err, unix.ENODEV) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// Look returns one device of ublk-loop, without a look at the others. It returns an error
// that wraps ENODEV if there is none with this id.
func Look(ctl *ublk.Control, id uint32) (Status, error) {
	info, err := ctl.Info(id)
	if err == nil && !isOurs(&info) {
		err = fmt.Errorf("%s is of another program: %w", ublk.BlockPath(id), unix.ENODEV)
	}
	if err != nil {
		return Status{}, err
	}
	return statusOf(ctl, info)
}

// statusOf returns the status of a device. It returns an error that wraps ENODEV if the device
// went meanwhile, also if another device has its id now: a part of the status could be of that one.
func statusOf(ctl *ublk.Control, info ublk.Info) (Status, error) {
	s, err := combine(ctl, info)
	if err != nil {
		return Status{}, err
	}
	now, err := ctl.Info(info.ID)
	switch {
	case errors.Is(err, ublk.ErrControlHung): // a device that hangs keeps its id
		return s, nil
	case err == nil && now.Tag != info.Tag:
		err = fmt.Errorf("%s: %w", ublk.BlockPath(info.ID), errReplaced)
	}
	return s, err
}

// combine combines the driver's data and the state file of a device. The driver's data
// has precedence. The driver does not tell the parameters of a device whose removal waits for
// a disk that hangs. The state file has those of the start.
func combine(ctl *ublk.Control, info ublk.Info) (Status, error) {
	if err := process.CheckProc(); err != nil { // without /proc every server would look dead
		return Status{}, err
	}
	params, hung := ctl.Params(info.ID)
	if hung != nil && !errors.Is(hung, ublk.ErrControlHung) {
		return Status{}, hung
	}
	saved, err := readState(info.ID)
	if err != nil || hung != nil && saved == nil {
		return Status{}, errors.Join(err, hung)
	}
	var s Status
	state := info.State
	if saved == nil {
		s.PID = pidOf(&info)
	} else {
		s = *saved.Status
		if now, err := process.StartTime(s.PID); err != nil || now != saved.StartTime {
			s.PID = 0
		}
	}
	if s.PID == 0 && state == ublk.StateLive {
		state = afterCrash(info.Features) // the driver is about to notice the server's end
	}
	s.ID = info.ID
	s.Device = ublk.BlockPath(info.ID)
	s.MajMin, s.DiskSequence = blockOf(info.ID)
	s.Tag, s.State = info.Tag, state.String()
	if hung == nil {
		s.Size, s.ReadOnly, s.Limits = params.Size, params.ReadOnly, limitsOf(&params)
		s.Table = sizedTable(s.Table, s.Size)
	}
	s.OnCrash = string(onCrashOf(info.Features))
	s.Queues, s.Depth = int(info.Queues), int(info.Depth)
	return s, nil
}

// pidOf returns the server of a device without a state file, or 0. For a started device
// the driver knows the server, even if another process has added the device. Before the
// start the tag names the process that added the device. The tag never changes, because
// the driver does not accept a new one at a recovery.
func pidOf(info *ublk.Info) int {
	pid := 0
	switch info.State {
	case ublk.StateDead:
		pid = tagPID(info.Tag)
	case ublk.StateLive:
		pid = int(info.ServerPID)
	}
	if pid <= 0 || !process.Exists(pid) {
		return 0
	}
	return pid
}

// afterCrash returns the state of a device that has lost its server.
func afterCrash(f ublk.Features) ublk.State {
	if f.Recoverable() {
		return ublk.StateQuiesced
	}
	return ublk.StateDead
}

// Find returns the devices of a file or disk. A file that has got the inode number of
// another, or a disk that has got the number of another, has none of its devices.
func Find(ctl *ublk.Control, file *os.File) ([]Status, error) {
	wanted, err := identity.Of(file)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", file.Name(), err)
	}
	list, err := List(ctl)
	if err != nil {
		return nil, err
	}
	var found []Status
	for _, s := range list {
		is, err := s.isOf(wanted)
		if err != nil {
			return nil, err
		}
		if is {
			found = append(found, s)
		}
	}
	return found, nil
}

// isOf reports whether the device has this file or disk. While it has a server, the
// server has the file open, so that no other file has the numbers.
func (s *Status) isOf(wanted identity.File) (bool, error) {
	if s.PID != 0 && slices.ContainsFunc(s.files(), wanted.HasNumbersOf) {
		return true, nil
	}
	saved, err := readState(s.ID)
	return err == nil && saved != nil && slices.ContainsFunc(saved.files(), wanted.Is), err
}

// file returns the identity of the device's file or disk, without its birth.
func (s *Status) file() identity.File {
	return identity.File{IsDisk: s.FileIsDisk, Device: s.FileDevice, Inode: s.FileInode}
}
