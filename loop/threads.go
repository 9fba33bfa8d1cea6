package loop

import (
	"sync"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// threads holds the threads of a Server's devices. Devices share threads if their files
// are on the same disk or file system: if that hangs, all of them hang anyway. A device
// whose thread copies data has threads of its own, because the others would wait for the
// copies.
type threads struct {
	failed func(error)

	mu    sync.Mutex
	disks map[uint64]*ublk.Threads
}

func newThreads(failed func(error)) *threads {
	return &threads{failed: failed, disks: map[uint64]*ublk.Threads{}}
}

// of returns the threads for a device with a buffer mode, as Status has it. With a nil
// receiver it returns nil, for threads of the device's own.
func (t *threads) of(b *backing.Backing, mode string) *ublk.Threads {
	switch {
	case t == nil:
		return nil
	case copies(b, mode):
		return ublk.NewThreads(t.failed)
	}
	disk := b.Dev
	if b.IsDisk {
		disk = b.Rdev
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.disks[disk] == nil {
		t.disks[disk] = ublk.NewThreads(t.failed)
	}
	return t.disks[disk]
}

// options returns the threads for a device, for addDevice.
func (t *threads) options(b *backing.Backing) func(ublk.BufferMode) ublk.Options {
	return func(mode ublk.BufferMode) ublk.Options { return ublk.Options{Threads: t.of(b, mode.String())} }
}

// copies reports whether the thread of a queue copies data: from or to the page cache, in
// the submission of a buffered read or write, or in copy mode, where the driver copies. A
// transfer needs copy mode.
func copies(b *backing.Backing, mode string) bool {
	return !b.Direct || mode == ublk.BufferCopy.String()
}
