package loop

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// These are the values of Status.CopyReason.
const (
	CopyAsked     = "asked"     // Config.ZeroCopy is off
	CopyTransfer  = "transfer"  // the transfer needs a copy to work on
	CopyKernel    = "kernel"    // the driver offers no zero copy
	CopyOffset    = "offset"    // the sectors of the device are not aligned in the file
	CopyChecksums = "checksums" // the disk or file system verifies checksums, see Checksummer
)

// Checksummer returns the name of the disk, or the type of the file system, that verifies
// checksums of the data of an OpenPath object. It returns "" if there is none. With zero
// copy and direct I/O such a disk stores wrong checksums of pages that change while they
// are written.
var Checksummer = backing.Checksummer

// buffers holds the buffer modes that a device may have.
type buffers struct {
	modes  []ublk.BufferMode // best first
	reason string            // why zero copy is not among the modes
}

// reasonFor returns Status.CopyReason for a device in one of the modes.
func (b *buffers) reasonFor(mode ublk.BufferMode) string {
	switch {
	case mode.ZeroCopy():
		return ""
	case b.reason == "":
		return CopyKernel
	}
	return b.reason
}

// chooseBuffers returns the modes that Config.ZeroCopy allows.
func chooseBuffers(of storage, cfg *Config) (*buffers, error) {
	zero := []ublk.BufferMode{ublk.BufferAutoRegister, ublk.BufferRegister}
	onlyCopy := []ublk.BufferMode{ublk.BufferCopy}
	switch {
	case cfg.ZeroCopy != SwitchOn && cfg.ZeroCopy != SwitchOff && cfg.ZeroCopy != SwitchAuto && cfg.ZeroCopy != "":
		return nil, fmt.Errorf("zero copy %q: not auto, on or off: %w", cfg.ZeroCopy, unix.EINVAL)
	case !cfg.Transfer.isNone():
		return &buffers{onlyCopy, CopyTransfer}, nil
	case cfg.Table != "" && of.Transforms() && cfg.ZeroCopy == SwitchOn:
		err := fmt.Errorf("zero copy is not possible with the targets crypt and verity: %w", unix.EINVAL)
		return nil, hint.Add(err, "leave {zero_copy} out")
	case cfg.Table != "" && of.Transforms():
		return &buffers{onlyCopy, CopyTransfer}, nil
	case of.IsUnaligned() && cfg.ZeroCopy == SwitchOn:
		err := fmt.Errorf("zero copy is not possible at offset %d: %w", cfg.Offset, unix.EINVAL)
		return nil, hint.Add(err, "leave {zero_copy} out")
	case of.IsUnaligned():
		return &buffers{onlyCopy, CopyOffset}, nil
	case cfg.ZeroCopy == SwitchOff:
		return &buffers{onlyCopy, CopyAsked}, nil
	case cfg.ZeroCopy == SwitchOn:
		return &buffers{modes: zero}, nil
	}
	checksummer, err := of.Checksummer()
	if err != nil {
		return nil, err
	}
	if checksummer != "" {
		return &buffers{onlyCopy, CopyChecksums}, nil
	}
	return &buffers{modes: append(zero, onlyCopy...)}, nil
}
