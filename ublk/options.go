package ublk

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Options describes the device to add. The zero value is a device with the first free id,
// one queue for each CPU, 64 tags for each queue, and copy mode, which any handler can
// serve.
type Options struct {
	// ID is the device's number, below 2^20; nil for the first free one.
	ID *uint32
	// Queues is the number of queues, 1 to 4096. The driver makes at most one for each
	// CPU. 0 means one for each CPU.
	Queues int
	// Depth is the number of tags of a queue, 1 to 4096. 0 means 64 in copy mode and 128
	// in the other modes.
	Depth int
	// MaxIOBytes is the largest request, from a page to 32 MiB, rounded down to a page.
	// 0 means 256 KiB in copy mode, where each tag has a buffer of that size, and 1 MiB
	// in the other modes.
	MaxIOBytes uint32
	// Mode says where the bytes of requests live. Add fails if the kernel does not offer
	// the mode. Device.Start fails in a zero-copy mode if a handler is not a Completer,
	// because such a handler cannot reach a request's bytes.
	Mode BufferMode
	// NoPartScan keeps the kernel from searching for partitions when the device starts.
	// Before Linux 7.0 the driver has no flag for that (UBLK_F_NO_AUTO_PART_SCAN). The
	// queues' threads then drop CAP_SYS_ADMIN instead, and a later BLKRRPART fails with
	// EINVAL.
	NoPartScan bool
	// Features are further features to request, of those that change nothing for a
	// server. The driver ignores unknown ones.
	Features Features
	// Files is the number of files that a queue can register (Queue.RegisterFile). 0 means
	// 8.
	Files int
	// ExtraParts is the number of parts of requests that a queue can have in flight, beside
	// one of each request (Request.PartSQE).
	ExtraParts int
	// Tag is a number that the driver keeps with the device. A program can recognize its
	// devices by it.
	Tag uint64
	// Threads serve the queues, together with queues of other devices. nil gives each
	// queue a thread of its own.
	Threads *Threads
}

const (
	defaultDepth      = 128
	defaultFiles      = 8
	defaultMaxIOBytes = 1 << 20
	// Copy mode pins depth × size bytes for each queue: 16 MiB with these defaults.
	defaultCopyDepth      = 64
	defaultCopyMaxIOBytes = 256 << 10
	maxIOBytesLimit       = 1 << uapi.UBLK_IO_BUF_BITS
	// A ring has at most 32768 entries and files (IORING_MAX_ENTRIES, IORING_MAX_FIXED_FILES).
	maxFiles      = 1 << 10
	maxExtraParts = 1 << 10
	// A device has the number of its minor (UBLK_MAX_UBLKS).
	maxID = 1<<20 - 1
)

func (o *Options) validate() error {
	switch {
	case o.Queues < 0 || o.Queues > uapi.UBLK_MAX_NR_QUEUES:
		return fmt.Errorf("%d queues: not from 1 to %d: %w", o.Queues, uapi.UBLK_MAX_NR_QUEUES, unix.EINVAL)
	case o.Depth < 0 || o.Depth > uapi.UBLK_MAX_QUEUE_DEPTH:
		return fmt.Errorf("queue depth %d: not from 1 to %d: %w", o.Depth, uapi.UBLK_MAX_QUEUE_DEPTH, unix.EINVAL)
	case o.ID != nil && *o.ID > maxID: // the driver would take the largest number for any free one
		return fmt.Errorf("device number %d: not from 0 to %d: %w", *o.ID, maxID, unix.EINVAL)
	case o.MaxIOBytes != 0 && (o.MaxIOBytes < uint32(unix.Getpagesize()) || o.MaxIOBytes > maxIOBytesLimit):
		return fmt.Errorf("largest request of %d bytes: not from a page to %d: %w", o.MaxIOBytes, maxIOBytesLimit, unix.EINVAL)
	}
	return checkCounts(o.Files, o.ExtraParts)
}

// checkCounts refuses numbers of files and of extra parts for which a ring has no room.
func checkCounts(files, extraParts int) error {
	switch {
	case files < 0 || files > maxFiles:
		return fmt.Errorf("%d files: not from 0 to %d: %w", files, maxFiles, unix.EINVAL)
	case extraParts < 0 || extraParts > maxExtraParts:
		return fmt.Errorf("%d extra parts: not from 0 to %d: %w", extraParts, maxExtraParts, unix.EINVAL)
	}
	return nil
}

// info returns the argument of ADD_DEV for a mode.
func (o *Options) info(mode BufferMode) *uapi.CtrlDevInfo {
	info := &uapi.CtrlDevInfo{
		DevID:         anyDevice,
		NrHwQueues:    uint16(orDefault(o.Queues, min(runtime.NumCPU(), uapi.UBLK_MAX_NR_QUEUES))),
		MaxIOBufBytes: orDefault(o.MaxIOBytes, defaultMaxIOBytes),
		QueueDepth:    uint16(orDefault(o.Depth, defaultDepth)),
		Flags:         uint64(mode.features() | o.Features),
		UblksrvFlags:  o.Tag,
	}
	if mode == BufferCopy {
		info.MaxIOBufBytes = orDefault(o.MaxIOBytes, defaultCopyMaxIOBytes)
		info.QueueDepth = uint16(orDefault(o.Depth, defaultCopyDepth))
	}
	if o.NoPartScan {
		info.Flags |= uapi.UBLK_F_NO_AUTO_PART_SCAN
	}
	if o.ID != nil {
		info.DevID = *o.ID
	}
	return info
}

func orDefault[T int | uint32](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
