package backing

import (
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
)

// Switch is auto, on or off.
type Switch string

// These are the values of a Switch. The empty string means SwitchAuto.
const (
	SwitchAuto Switch = "auto" // on if possible
	SwitchOn   Switch = "on"   // an error if not possible
	SwitchOff  Switch = "off"
)

// Options say which part of a file or disk is the device, and how to open it. loop.Config
// describes them.
type Options struct {
	LockDir    string // the directory of package filelock
	ReadOnly   bool
	Shared     bool
	Offset     uint64
	SizeLimit  uint64
	SectorSize uint32
	DirectIO   Switch
	MaxIOBytes uint32
	KeepSpace  bool
	// WholeSectors leaves out the part of a sector at the end, as the kernel does.
	WholeSectors bool
	// Unchanged also locks a disk that is only read against writers, as the origin of a snapshot needs it.
	Unchanged bool
	// Lock is the part of the file or disk that the device locks.
	Lock     filelock.Range
	Transfer *Transfer // nil if the device has the bytes of the file
	// Store is the store that is merged into the file. A file that stores need (package
	// basemark) is only opened for writing if this is the only one.
	Store *basemark.UUID
	// Thaw opens a file for writing whatever stores need it.
	Thaw bool
}

// Transfer has the options of a transfer that affect the backing.
type Transfer struct {
	SectorSize    uint32 // 0 for the device's sector size
	AllowDiscards bool
}

// sectorSizeOn returns the transfer's sector size, given the device's. It returns 0
// without a transfer.
func (t *Transfer) sectorSizeOn(device uint32) uint32 {
	switch {
	case t == nil:
		return 0
	case t.SectorSize == 0:
		return device
	}
	return t.SectorSize
}
