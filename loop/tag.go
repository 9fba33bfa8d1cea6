package loop

import (
	"os"
	"sync/atomic"

	"github.com/ublk-loop/ublk-loop/ublk"
)

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
