package loop

import (
	"sync"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// threads are those of a Server's devices. Devices share some whose files are on
// the same disk or file system: where that hangs, it hangs for all of them.
type threads struct {
	failed func(error)

	mu    sync.Mutex
	disks map[uint64]*ublk.Threads
}

func newThreads(failed func(error)) *threads {
	return &threads{failed: failed, disks: map[uint64]*ublk.Threads{}}
}

// of returns the threads for a device; nil, from nil, for its own.
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
