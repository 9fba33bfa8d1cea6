package ublktest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// charFake is a Fake with character devices. A character device is first a file in memory
// with the size of a queue's descriptors, which the queue maps. takeCommands then turns
// the same descriptor into one of /dev/null, which accepts commands.
type charFake struct {
	Fake
	char int // the last result of OpenChar; protected by mu
}

var _ ublk.CharOpener = (*charFake)(nil)

// OpenChar implements ublk.CharOpener.
func (f *charFake) OpenChar(uint32) (int, error) {
	fd, err := unix.MemfdCreate("ublkc", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("make descriptors: %w", err)
	}
	const bytes = 24 // size of a descriptor
	if err := unix.Ftruncate(fd, bytes*uapi.UBLK_MAX_QUEUE_DEPTH); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("make descriptors: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.char = fd
	return fd, nil
}

// takeCommands makes the last result of OpenChar accept commands. /dev/null accepts
// commands since Linux 6.2 (uring_cmd_null in drivers/char/mem.c).
func (f *charFake) takeCommands() error {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	return f.become(fd)
}

// refuseCommands makes the last result of OpenChar refuse commands, with EOPNOTSUPP.
func (f *charFake) refuseCommands() error {
	fd, err := unix.MemfdCreate("ublkc", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	return f.become(fd)
}

// become replaces the last result of OpenChar by another file, and closes fd.
func (f *charFake) become(fd int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(unix.Dup3(fd, f.char, unix.O_CLOEXEC), unix.Close(fd))
}

// Do implements ublk.Transport.
func (f *charFake) Do(cmd ublk.Command) error {
	switch cmd.Op {
	case uapi.UBLK_U_CMD_GET_QUEUE_AFFINITY: // no CPU, so that the thread stays unbound
		return nil
	case uapi.UBLK_U_CMD_START_DEV:
		f.Set(cmd.DevID, ublk.StateLive, int32(cmd.Data))
		return nil
	}
	return f.Fake.Do(cmd)
}
