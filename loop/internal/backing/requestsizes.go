package backing

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
)

// maxIOBytesLimit and copyMaxIOBytes bound the largest request of a device. The first is
// the driver's own limit (UBLK_IO_BUF_BITS). The second is a compromise for copy mode, in
// which each tag has a buffer of that size in memory.
const (
	maxIOBytesLimit = 32 << 20
	copyMaxIOBytes  = 256 << 10
)

// RequestSizes is what the largest request of a device depends on, in bytes.
type RequestSizes struct {
	Asked uint32 // Options.MaxIOBytes
	Below uint64 // the largest request of the disk below
}

// Wanted returns the value for ublk.Options.MaxIOBytes: the configured size, or the
// largest request of the disk below, in whole pages. Any mode without zero copy counts as
// copy mode.
func (r RequestSizes) Wanted(mode ublk.BufferMode) uint32 {
	if r.Asked != 0 {
		return r.Asked
	}
	limit := uint64(maxIOBytesLimit)
	if !mode.ZeroCopy() {
		limit = copyMaxIOBytes
	}
	page := uint64(unix.Getpagesize())
	return uint32(max((min(r.Below, limit)+page-1)/page*page, page))
}

// Largest returns the value for ublk.Params.MaxIOBytes: the configured size or that of the
// disk below, in whole blocks, and at most what the driver allows (ublk.Info.MaxIOBytes).
// If the size exceeds the disk's, the kernel splits requests below the device, which costs
// less than splitting them above it. The driver refuses less than a page
// (ublk_validate_params), and Largest returns an error that wraps EINVAL if it allows less.
func (r RequestSizes) Largest(allowed, block uint32) (uint32, error) {
	page := uint32(unix.Getpagesize())
	if allowed < page {
		return 0, fmt.Errorf("largest request of %d bytes: below a page: %w", allowed, unix.EINVAL)
	}
	size := allowed
	if r.Asked == 0 {
		size = uint32(min(r.Below, uint64(allowed)))
	}
	return max(size-size%block, page), nil
}
