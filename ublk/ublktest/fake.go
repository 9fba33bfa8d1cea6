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

// Fake is a driver for tests without the kernel. As a ublk.Transport it accepts one
// command at a time, records it, and keeps the added devices. It has no /dev/ublkcN, so
// that it cannot serve devices; a Disk can.
type Fake struct {
	// Offers is the answer to GET_FEATURES and the maximum of a device's flags. With 0
	// the driver has no GET_FEATURES.
	Offers ublk.Features
	// Withheld is offered but missing in a device's flags, as zero copy is in drivers
	// before Linux 6.15.
	Withheld ublk.Features
	// Fail maps the number of a command to its error.
	Fail map[uint32]error

	mu       sync.Mutex // protects the fields below
	commands []ublk.Command
	devices  map[uint32]*fakeDevice
	closed   bool
}

type fakeDevice struct {
	info   []byte
	params []byte
}

// These are the offsets of the fields of struct ublksrv_ctrl_dev_info that the fake uses
// (ublk/uapi/testdata/abi.txt).
const (
	infoQueues = 0
	infoState  = 4
	infoMaxIO  = 8
	infoDevID  = 12
	infoPID    = 16
	infoFlags  = 24
	// offset in struct ublk_params
	paramsSectors = 24

	anyFakeID   = ^uint32(0)
	fakeMaxCPUs = 4
	fakePage    = 4096
)

// Set sets the state and the server's process of a device, as if it had been started or
// had lost its server.
func (f *Fake) Set(id uint32, state ublk.State, pid int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := f.devices[id].info
	binary.NativeEndian.PutUint16(info[infoState:], uint16(state))
	binary.NativeEndian.PutUint32(info[infoPID:], uint32(pid))
}

// Commands returns the received commands in order.
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

// startRecovery answers like ublk_ctrl_start_recovery.
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
