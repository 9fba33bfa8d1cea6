package ublktest

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Fake is a driver for tests that need no kernel: it takes one command at a
// time, as ublk.Transport, records it, and keeps the devices that are added.
// It has no /dev/ublkcN, so nothing can be served: a Disk has one.
type Fake struct {
	// Offers is what it answers to GET_FEATURES and leaves in a device's
	// flags. 0 makes it a driver without GET_FEATURES.
	Offers ublk.Features
	// Withheld is what it offers and leaves out of a device all the same, as
	// drivers before Linux 6.15 do with zero copy.
	Withheld ublk.Features
	// Fail makes a command fail with an error, by its number.
	Fail map[uint32]error

	mu       sync.Mutex // protects what is below
	commands []ublk.Command
	devices  map[uint32]*fakeDevice
	closed   bool
}

type fakeDevice struct {
	info   []byte
	params []byte
}

// Where the fields of struct ublksrv_ctrl_dev_info are that the fake knows
// (ublk/uapi/testdata/abi.txt).
const (
	infoQueues = 0
	infoState  = 4
	infoMaxIO  = 8
	infoDevID  = 12
	infoPID    = 16
	infoFlags  = 24
	// In struct ublk_params.
	paramsSectors = 24

	anyFakeID   = ^uint32(0)
	fakeMaxCPUs = 4
	fakePage    = 4096
)

// Set makes a device of some state, with a server's process, as if it had been
// started, or its server had gone.
func (f *Fake) Set(id uint32, state ublk.State, pid int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := f.devices[id].info
	binary.NativeEndian.PutUint16(info[infoState:], uint16(state))
	binary.NativeEndian.PutUint32(info[infoPID:], uint32(pid))
}

// Commands returns the commands that came, in order.
func (f *Fake) Commands() []ublk.Command {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

// IDs returns the ids of the devices that exist.
func (f *Fake) IDs() []uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.devices))
}

// Closed reports whether the transport was closed.
func (f *Fake) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Close implements ublk.Transport.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// Do implements ublk.Transport.
func (f *Fake) Do(cmd ublk.Command) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	record := cmd
	record.Buf = slices.Clone(cmd.Buf)
	f.commands = append(f.commands, record)
	if err := f.Fail[cmd.Op]; err != nil {
		return err
	}
	switch cmd.Op {
	case uapi.UBLK_U_CMD_GET_FEATURES:
		if f.Offers == 0 {
			return unix.ENODEV
		}
		binary.NativeEndian.PutUint64(cmd.Buf, uint64(f.Offers))
		return nil
	case uapi.UBLK_U_CMD_ADD_DEV:
		return f.add(cmd)
	}
	d := f.devices[cmd.DevID]
	if d == nil {
		return unix.ENODEV
	}
	return f.toDevice(d, cmd)
}

func (f *Fake) add(cmd ublk.Command) error {
	e := binary.NativeEndian
	id := e.Uint32(cmd.Buf[infoDevID:])
	if id != cmd.DevID {
		return unix.EINVAL
	}
	if id == anyFakeID {
		for id = 0; f.devices[id] != nil; id++ {
		}
	}
	if f.devices[id] != nil {
		return unix.EEXIST
	}
	e.PutUint32(cmd.Buf[infoDevID:], id)
	e.PutUint32(cmd.Buf[infoPID:], ^uint32(0))
	e.PutUint16(cmd.Buf[infoQueues:], min(e.Uint16(cmd.Buf[infoQueues:]), fakeMaxCPUs))
	e.PutUint32(cmd.Buf[infoMaxIO:], e.Uint32(cmd.Buf[infoMaxIO:])/fakePage*fakePage)
	e.PutUint64(cmd.Buf[infoFlags:], e.Uint64(cmd.Buf[infoFlags:])&uint64(f.Offers&^f.Withheld))
	if f.devices == nil {
		f.devices = map[uint32]*fakeDevice{}
	}
	f.devices[id] = &fakeDevice{info: slices.Clone(cmd.Buf)}
	return nil
}

// startRecovery answers as ublk_ctrl_start_recovery does.
func (d *fakeDevice) startRecovery() error {
	e := binary.NativeEndian
	switch {
	case !ublk.Features(e.Uint64(d.info[infoFlags:])).Recoverable():
		return unix.EINVAL
	case e.Uint16(d.info[infoState:]) != uapi.UBLK_S_DEV_QUIESCED:
		return unix.EBUSY
	}
	return nil
}

func (f *Fake) toDevice(d *fakeDevice, cmd ublk.Command) error {
	switch cmd.Op {
	case uapi.UBLK_U_CMD_GET_DEV_INFO:
		copy(cmd.Buf, d.info)
	case uapi.UBLK_U_CMD_SET_PARAMS:
		d.params = slices.Clone(cmd.Buf)
	case uapi.UBLK_U_CMD_GET_PARAMS:
		copy(cmd.Buf, d.params)
	case uapi.UBLK_U_CMD_UPDATE_SIZE:
		if !f.Offers.Has(uapi.UBLK_F_UPDATE_SIZE) {
			return unix.EOPNOTSUPP
		}
		binary.NativeEndian.PutUint64(d.params[paramsSectors:], cmd.Data)
	case uapi.UBLK_U_CMD_START_USER_RECOVERY:
		return d.startRecovery()
	case uapi.UBLK_U_CMD_STOP_DEV:
		binary.NativeEndian.PutUint16(d.info[infoState:], uapi.UBLK_S_DEV_DEAD)
	case uapi.UBLK_U_CMD_DEL_DEV:
		delete(f.devices, cmd.DevID)
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}
