package ublk

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// State is the driver's state of a device.
type State uint16

// The states of a device (linux/ublk_cmd.h).
const (
	StateDead     State = uapi.UBLK_S_DEV_DEAD     // without a disk: not started, stopped, or its server has ended
	StateLive     State = uapi.UBLK_S_DEV_LIVE     // served
	StateQuiesced State = uapi.UBLK_S_DEV_QUIESCED // its server has ended, and I/O waits for another
	StateFailIO   State = uapi.UBLK_S_DEV_FAIL_IO  // its server has ended, and I/O fails until another comes
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case StateDead:
		return "dead"
	case StateLive:
		return "live"
	case StateQuiesced:
		return "quiesced"
	case StateFailIO:
		return "fail-io"
	}
	return fmt.Sprintf("state %d", uint16(s))
}

// Info is the driver's description of a device (struct ublksrv_ctrl_dev_info).
type Info struct {
	ID         uint32
	State      State
	Queues     uint16
	Depth      uint16 // tags of a queue
	MaxIOBytes uint32 // the largest request
	ServerPID  int32  // thread group of the server, -1 for none
	Features   Features
	Tag        uint64 // Options.Tag
	OwnerUID   uint32
	OwnerGID   uint32
}

func infoOf(u *uapi.CtrlDevInfo) Info {
	return Info{
		ID:         u.DevID,
		State:      State(u.State),
		Queues:     u.NrHwQueues,
		Depth:      u.QueueDepth,
		MaxIOBytes: u.MaxIOBufBytes,
		ServerPID:  u.UblksrvPID,
		Features:   Features(u.Flags),
		Tag:        u.UblksrvFlags,
		OwnerUID:   u.OwnerUID,
		OwnerGID:   u.OwnerGID,
	}
}

const (
	// allClasses exists if sysfs is mounted.
	allClasses = "/sys/class"
	// classDir lists the character devices of all ublk devices. It exists while the driver is loaded.
	classDir = allClasses + "/ublk-char"
)

// List returns the driver's description of every ublk device, whichever program serves it,
// in the order of ids.
func (c *Control) List() ([]Info, error) {
	return c.ListExcept(func(uint32) bool { return false })
}

// ListExcept is List without some devices, for which it does not ask the driver.
func (c *Control) ListExcept(skip func(id uint32) bool) ([]Info, error) {
	ids, err := deviceIDs()
	if err != nil {
		return nil, err
	}
	var infos []Info
	for _, id := range ids {
		if skip(id) {
			continue
		}
		info, err := c.Info(id)
		if errors.Is(err, unix.ENODEV) {
			continue // another process has deleted it
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func deviceIDs() ([]uint32, error) {
	entries, err := os.ReadDir(classDir)
	if errors.Is(err, os.ErrNotExist) {
		if _, err = os.Stat(allClasses); errors.Is(err, os.ErrNotExist) {
			err = ErrNoSysfs
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list ublk devices: %w", err)
	}
	var ids []uint32
	for _, e := range entries {
		id, err := strconv.ParseUint(strings.TrimPrefix(e.Name(), "ublkc"), 10, 32)
		if err == nil {
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	return ids, nil
}
