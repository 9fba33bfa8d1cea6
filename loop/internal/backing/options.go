package backing

// Switch is a choice that can be left to us.
type Switch string

// The values of a Switch. The empty string means SwitchAuto.
const (
	SwitchAuto Switch = "auto" // on if possible
	SwitchOn   Switch = "on"   // an error if not possible
	SwitchOff  Switch = "off"
)

// Options say which part of a file or disk is a device, and how it is opened. They are
// those of loop.Config.
type Options struct {
	ReadOnly   bool
	Shared     bool
	Offset     uint64
	SizeLimit  uint64
	SectorSize uint32
	DirectIO   Switch
	MaxIOBytes uint32
	Transfer   *Transfer // nil if the device has the bytes of the file
}

// Transfer is what matters of a transfer here.
type Transfer struct {
	SectorSize    uint32 // 0 for the device's
	AllowDiscards bool
}

// sectorSizeOn returns the transfer's sector size, given the device's; 0 for no
// transfer.
func (t *Transfer) sectorSizeOn(device uint32) uint32 {
	switch {
	case t == nil:
		return 0
	case t.SectorSize == 0:
		return device
	}
	return t.SectorSize
}
