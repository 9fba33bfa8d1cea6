package flock

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/eintr"
)

// fileID identifies an open file while it exists.
type fileID struct{ device, inode uint64 }

func idOf(f *os.File) (fileID, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return fileID{st.Dev, st.Ino}, err
}

// abandoned has the number of goroutines that wait for the lock of a file although their callers have given up. Each has a
// thread and a descriptor. A caller that tries again polls, so that it adds no more of them.
var abandoned = struct {
	sync.Mutex
	of map[fileID]int
}{of: make(map[fileID]int)}

// wait is the wait of a goroutine. The lock of abandoned protects it.
type wait struct {
	id               fileID
	ended, isCounted bool
}

func (w *wait) abandon() {
	abandoned.Lock()
	defer abandoned.Unlock()
	if !w.ended {
		w.isCounted = true
		abandoned.of[w.id]++
	}
}

func (w *wait) end() {
	abandoned.Lock()
	defer abandoned.Unlock()
	w.ended = true
	if !w.isCounted {
		return
	}
	if abandoned.of[w.id]--; abandoned.of[w.id] == 0 {
		delete(abandoned.of, w.id)
	}
}

func isAbandoned(id fileID) bool {
	abandoned.Lock()
	defer abandoned.Unlock()
	return abandoned.of[id] > 0
}

// pollPause is the time between two attempts of poll.
const pollPause = 20 * time.Millisecond

// poll tries to lock a file until patience has passed.
func poll(f *os.File, how int, patience time.Duration) error {
	for over := time.Now().Add(patience); ; <-time.After(pollPause) {
		err := eintr.Repeat(func() error { return unix.Flock(int(f.Fd()), how|unix.LOCK_NB) })
		switch {
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		case time.Now().After(over):
			return late(f, patience)
		}
	}
}
