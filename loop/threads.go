package loop

import (
	"sync"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// threads holds the threads of a Server's devices. Devices share threads if their files
// are on the same disk or file system: if that hangs, all of them hang anyway.
type threads struct {
	failed func(error)

	mu    sync.Mutex
	disks map[uint64]*ublk.Threads
}

func newThreads(failed func(error)) *threads {
	return &threads{failed: failed, disks: map[uint64]*ublk.Threads{}}
}

// of returns the threads for a device. With a nil receiver it returns nil, for threads of
// the device's own.
func (t *threads) of(b *backing.Backing) *ublk.Threads {
	if t == nil {
		return nil
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
