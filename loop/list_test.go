package loop

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A file and the disk of its file system have a number in common.
func TestIsMadeOf(t *testing.T) {
	disk, other := unix.Mkdev(254, 1), unix.Mkdev(254, 2)
	file := Status{FileDevice: identity.MajMin(disk), FileInode: 12}
	onDisk := Status{FileDevice: identity.MajMin(disk), FileInode: 12, FileIsDisk: true}
	for _, tt := range []struct {
		name                 string
		st                   unix.Stat_t
		ofTheFile, ofTheDisk bool
	}{
		{"the file", unix.Stat_t{Mode: unix.S_IFREG, Dev: disk, Ino: 12}, true, false},
		{"another file", unix.Stat_t{Mode: unix.S_IFREG, Dev: disk, Ino: 13}, false, false},
		{"a file of another file system", unix.Stat_t{Mode: unix.S_IFREG, Dev: other, Ino: 12}, false, false},
		{"the disk", unix.Stat_t{Mode: unix.S_IFBLK, Dev: 5, Ino: 99, Rdev: disk}, false, true},
		{"the disk, by another node", unix.Stat_t{Mode: unix.S_IFBLK, Dev: 6, Ino: 7, Rdev: disk}, false, true},
		{"another disk", unix.Stat_t{Mode: unix.S_IFBLK, Dev: 5, Ino: 99, Rdev: other}, false, false},
		{"the node of another disk, on the file's file system", unix.Stat_t{Mode: unix.S_IFBLK, Dev: disk, Ino: 12, Rdev: other}, false, false},
		{"a directory", unix.Stat_t{Mode: unix.S_IFDIR, Dev: disk, Ino: 12}, false, false},
	} {
		if file.file().HasNumbersOf(identity.FromStat(&tt.st)) != tt.ofTheFile || onDisk.file().HasNumbersOf(identity.FromStat(&tt.st)) != tt.ofTheDisk {
			t.Errorf("%s: a device of the file is made of it: %v, one of the disk: %v; want %v, %v", tt.name,
				file.file().HasNumbersOf(identity.FromStat(&tt.st)), onDisk.file().HasNumbersOf(identity.FromStat(&tt.st)), tt.ofTheFile, tt.ofTheDisk)
		}
	}
}

// A device whose parameters the driver does not tell, because its removal hangs, is listed
// with those of its start. Another error is an error.
func TestStatusOfHungDevice(t *testing.T) {
	needState(t)
	fake, ctl := fakeDevice(t, newTag())
	info, err := ctl.Info(unusedID)
	if err != nil {
		t.Fatal(err)
	}
	fake.Fail = map[uint32]error{uapi.UBLK_U_CMD_GET_PARAMS: unix.EIO}
	if _, err := statusOf(ctl, info); !errors.Is(err, unix.EIO) {
		t.Errorf("error %v, want EIO", err)
	}
	fake.Fail = map[uint32]error{uapi.UBLK_U_CMD_GET_PARAMS: ublk.ErrControlHung}
	if _, err := statusOf(ctl, info); !errors.Is(err, ublk.ErrControlHung) {
		t.Errorf("without a state: error %v, want ErrControlHung", err)
	}
	s := state{Status: &Status{ID: unusedID, File: "/x", Size: 12288, ReadOnly: true}}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = statefile.Remove(unusedID) })
	now, err := statusOf(ctl, info)
	if err != nil || now.File != "/x" || now.Size != 12288 || !now.ReadOnly || now.Device != ublk.BlockPath(unusedID) {
		t.Errorf("status %+v, error %v", now, err)
	}
}

func TestParseBlock(t *testing.T) {
	for text, want := range map[string]struct {
		number   string
		sequence uint64
	}{
		"MAJOR=259\nMINOR=3\nDEVNAME=ublkb0\nDEVTYPE=disk\nDISKSEQ=17\n": {"259:3", 17},
		"MAJOR=259\nMINOR=3\nDEVNAME=ublkb0\nDEVTYPE=disk\n":             {"259:3", 0}, "": {"", 0},
	} {
		if number, sequence := parseBlock(text); number != want.number || sequence != want.sequence {
			t.Errorf("%q: %s, %d", text, number, sequence)
		}
	}
}

// replacing is a driver in which another device takes the number of a device while a command asks
// about it.
type replacing struct {
	*ublktest.Fake
	at uint32 // the command
}

// Do implements ublk.Transport.
func (r *replacing) Do(cmd ublk.Command) error {
	err := r.Fake.Do(cmd)
	if cmd.Op != r.at {
		return err
	}
	r.at = 0
	other, id := ublk.NewControl(r.Fake), cmd.DevID
	if err := other.Delete(id); err != nil {
		return err
	}
	_, err = other.Add(ublk.Options{ID: &id, Mode: ublk.BufferCopy, Tag: newTag()})
	return err
}

// A status is not made of two devices that have had the same number.
func TestStatusOfReplacedDevice(t *testing.T) {
	needState(t)
	fake, ctl := fakeDevice(t, newTag())
	info, err := ctl.Info(unusedID)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := statusOf(ctl, info); err != nil || s.Tag != info.Tag {
		t.Errorf("status %+v, error %v", s, err)
	}
	swapped := ublk.NewControl(&replacing{fake, uapi.UBLK_U_CMD_GET_PARAMS})
	if s, err := statusOf(swapped, info); !errors.Is(err, unix.ENODEV) {
		t.Errorf("status %+v, error %v; want ENODEV", s, err)
	}
}
