package loop

import (
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// Switch is a choice that can be left to us.
type Switch = backing.Switch

// The values of a Switch. The empty string means SwitchAuto.
const (
	SwitchAuto = backing.SwitchAuto // on if possible
	SwitchOn   = backing.SwitchOn   // an error if not possible
	SwitchOff  = backing.SwitchOff
)

// Config says what device to make of a file. The zero value of a field is its
// default.
type Config struct {
	// ID is the device's number; nil for the first free one.
	ID *uint32
	// ReadOnly makes the device read-only and opens the file so.
	ReadOnly bool
	// Offset is where in the file the device starts, in bytes: a multiple of
	// the sector size.
	Offset uint64
	// SizeLimit is the largest size of the device, in bytes; 0 for none.
	SizeLimit uint64
	// SectorSize is the device's logical block size in bytes: 512, 1024, 2048
	// or 4096. 0 means 512 for a file, a disk's own for a disk.
	SectorSize uint32
	// DirectIO says whether I/O bypasses the page cache of the file.
	DirectIO Switch
	// ZeroCopy says whether the backing file's I/O uses the pages of the
	// requests themselves.
	ZeroCopy Switch
	// PartScan makes the kernel look for partitions.
	PartScan bool
	// Queues and Depth are those of ublk.Options.
	Queues int
	Depth  int
	// MaxIOBytes is the largest request, whatever the backing device takes. 0
	// means the backing device's, and 256 KiB at most where the driver copies.
	MaxIOBytes uint32
	// Transfer is how the file's bytes differ from the device's.
	Transfer TransferConfig
	// Key is the transfer's, nil where that has none. Attach takes it over and
	// closes it, whatever comes of it. It is in no state.
	Key *transfer.Secret
	// OnCrash says what becomes of the device when its server is killed.
	OnCrash OnCrash
	// Shared attaches a file though another writer holds it.
	Shared bool
	// Autoclear says that the device is to be removed once nobody uses it, by
	// its Server.
	Autoclear bool
}
