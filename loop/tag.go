package loop

import (
	"os"
	"sync/atomic"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// The driver keeps 64 bits with a device. Ours are marked by the upper half,
// "ubl" and a version; the lower half is the server's process, known before
// there is a state file, and above its 22 bits (PID_MAX_LIMIT in
// linux/threads.h) a count, which tells a device from the next of the process
// with the same id.
const (
	tagMark    = 0x75626c01 << 32
	tagMask    = 0xffffffff << 32
	tagPIDBits = 22
)

// tagCount counts the devices of this process, modulo what a tag has room for.
var tagCount atomic.Uint32

// newTag returns the mark of another device of this process.
func newTag() uint64 {
	return tagMark | uint64(tagCount.Add(1)<<tagPIDBits|uint32(os.Getpid()))
}

// tagPID returns the process that made a device of ours.
func tagPID(tag uint64) int { return int(tag & (1<<tagPIDBits - 1)) }

// isOurs reports whether a device was made by ublk-loop.
func isOurs(info *ublk.Info) bool { return info.Tag&tagMask == tagMark }

// isOther reports whether something with the device's id is not the device.
func (d *Device) isOther(info *ublk.Info) bool { return info.Tag != d.dev.Info().Tag }

// TaggedID tells a device from the next one with its id.
type TaggedID struct {
	ID  uint32
	Tag uint64 // what the driver keeps with the device
}

// taggedID returns the device's.
func (d *Device) taggedID() TaggedID {
	info := d.dev.Info()
	return TaggedID{info.ID, info.Tag}
}
