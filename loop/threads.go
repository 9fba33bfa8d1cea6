package loop

import (
	"fmt"
	"slices"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/serving"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// threads holds the threads of a Server's devices. Devices share threads if their files
// are on the same disk or file system: if that hangs, all of them hang anyway. Devices of
// tables share threads if they are on all the same disks and file systems. A device
// whose threads copy data shares them only with other such devices, and only if there are
// many, because those that share a thread wait for its copies.
type threads struct {
	*serving.Pools
	has func(id uint32) bool // reports whether the server serves a device
}

func newThreads(failed func(error), has func(id uint32) bool) *threads {
	return &threads{serving.NewPools(failed, nil), has}
}

// serves returns a function that reports whether this process serves a device. The receiver can be nil.
func (t *threads) serves() func(id uint32) bool {
	if t == nil {
		return servesNone
	}
	return t.has
}

// of returns the threads for a device of some files and disks, with a buffer mode, as Status
// has it. With a nil receiver it returns nil, for threads of the device's own.
func (t *threads) of(mode string, backings ...*backing.Backing) *ublk.Threads {
	if t == nil {
		return nil
	}
	return t.Of(poolOf(mode, backings))
}

// poolOf returns the pool of a device.
func poolOf(mode string, backings []*backing.Backing) serving.Pool {
	return serving.Pool{Disks: disksOf(backings), Copies: copies(mode, backings)}
}

// disksOf returns the numbers of the disks and file systems of backings, in order.
func disksOf(backings []*backing.Backing) string {
	var numbers []uint64
	for _, b := range backings {
		numbers = append(numbers, b.DeviceNumber())
	}
	slices.Sort(numbers)
	return fmt.Sprint(slices.Compact(numbers))
}

// optionsOn returns the options of a device of some depth, for addDevice. shared can be nil.
func (d *Device) optionsOn(shared *threads, depth int) func(ublk.BufferMode) ublk.Options {
	return func(mode ublk.BufferMode) ublk.Options {
		opts := ublk.Options{Threads: shared.of(mode.String(), d.backings()...)}
		if s := d.stack; s != nil {
			opts.Files, opts.ExtraParts, opts.Features = s.Files(), s.ExtraParts(depth), s.Features(mode)
		}
		return opts
	}
}

// copies reports whether the thread of a queue copies data: from or to the page cache, in
// the submission of a buffered read or write, or in copy mode, where the driver copies. A
// transfer needs copy mode.
func copies(mode string, backings []*backing.Backing) bool {
	buffered := func(b *backing.Backing) bool { return !b.Direct }
	return mode == ublk.BufferCopy.String() || slices.ContainsFunc(backings, buffered)
}
